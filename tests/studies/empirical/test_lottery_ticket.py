import numpy as np
import xarray as xr

from phenoscope import data as data_sets
from phenoscope.studies.empirical import lottery_ticket as module

OBSERVABLES = module.study.observables
DENSITIES = [0.65**number for number in range(9)]


def result(rate=0.65, controls=(1, 5, 7, 8)):
    rng = np.random.default_rng(0)
    seeds, rounds = range(3), range(9)
    accuracy = rng.uniform(0.5, 0.7, (3, 9, 2))
    found = xr.Dataset(
        {
            "density": (("seed", "round"), np.tile([rate**number for number in rounds], (3, 1))),
            "test_accuracy": (("seed", "round", "step"), accuracy),
            "validation_accuracy": (("seed", "round", "step"), accuracy.copy()),
        },
        {"seed": seeds, "round": rounds, "step": [0, 10]},
    )
    if controls:
        below = found.test_accuracy.sel(round=list(controls)).rename(round="control_round")
        by = xr.DataArray([0.1, 0.2, 0.3], {"control": list(module.CONTROLS)}, "control")
        found["control_test_accuracy"] = below - by
    return found


def test_a_ticket_is_compared_with_its_control_of_the_same_round_and_seed():
    np.testing.assert_allclose(OBSERVABLES["winning-beats-reinit"](result()), 0.1)
    np.testing.assert_allclose(OBSERVABLES["mask-beats-random-mask"](result()), 0.2)
    assert OBSERVABLES["winning-beats-reinit"](result()).dims == ("seed",)


def test_the_round_is_chosen_by_validation_and_only_among_the_sparse_ones():
    data = result()
    data.validation_accuracy[:, :, -1] = 0.1
    data.validation_accuracy[:, 1, -1] = 0.99  # too dense to count
    data.validation_accuracy[:, 8, -1] = 0.99  # too sparse
    for seed, number in enumerate((3, 6, 4)):
        data.validation_accuracy[seed, number, -1] = 0.5
    expected = [
        float(data.test_accuracy[seed, number, -1] - data.test_accuracy[seed, 0, -1])
        for seed, number in enumerate((3, 6, 4))
    ]
    found = OBSERVABLES["matches-dense"](data)
    assert found.dims == ("seed",)
    np.testing.assert_allclose(found, expected)


def test_rounds_that_were_not_run_do_not_apply():
    short = result().sel(round=range(3)).drop_dims("control_round")
    for claim in OBSERVABLES:
        assert "not_applicable" in OBSERVABLES[claim](short).attrs
    other = result(rate=0.8)
    assert "density of about 0.116" in OBSERVABLES["winning-beats-reinit"](other).attrs["not_applicable"]


def test_early_stopping_is_where_validation_loss_is_smallest():
    data = result()
    data["validation_loss"] = xr.full_like(data.validation_accuracy, 1.0)
    data.validation_loss[:, :, 0] = 2.0
    data.validation_loss[1, 3, 0] = 0.5
    found = module.early_stop(data)
    assert found["at"].sel(seed=1, round=3) == 0 and found["at"].sum() == 26 * 10
    assert found.accuracy[1, 3] == data.test_accuracy[1, 3, 0] and found.accuracy[0, 3] == data.test_accuracy[0, 3, 1]


def test_tickets_win_that_are_as_good_and_no_slower_than_the_dense_network():
    data = result()
    data["validation_loss"] = xr.zeros_like(data.validation_accuracy)
    data.validation_loss[..., 0] = 1  # everywhere smallest at step 10
    data.test_accuracy[..., -1] = xr.DataArray([0.60, 0.62, 0.64], dims="seed")  # dense: mean 0.62, deviation 0.02
    data.test_accuracy[:, 2, -1] -= 0.03
    data.test_accuracy[:, 4, -1] -= 0.01
    assert module.winning(data).values.tolist() == [False, True, False, True, True, True, True, True, True]
    data.validation_loss[:, 0, 0] = -1  # now the dense network is the fastest
    assert not module.winning(data).any()


def test_one_shot_of_the_first_round_is_the_ticket_itself():
    from phenoscope.lab.map import Lab
    from phenoscope.studies.benches import tickets as bench

    found = module.one_seed(
        Lab(0), model=bench.mlp, dataset=data_sets.digits, rounds=1, rate=0.35, control_rounds=(1,), steps=60, seed=0
    ).squeeze("control_round")
    assert found.density.values.tolist() == [1, round(0.65 * 17_400) / 17_400]
    # the same mask, weights and batches, once by fit and once in a fleet: a decision of 397 may differ
    once = found.control_test_accuracy.sel(control="one shot")
    np.testing.assert_allclose(found.test_accuracy.sel(round=1), once, atol=0.003)
    assert (abs(found.test_accuracy.sel(round=1) - found.control_test_accuracy.sel(control="random weights")) > 0).any()
