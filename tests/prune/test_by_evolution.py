import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope.core.errors import InputError
from phenoscope.prune import by_evolution
from phenoscope.record import Recorder, least_evolved, open_run


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def planted(model, speeds, path, *, steps=4, **settings):
    """A run in which the filters of each layer move as fast as they are told."""
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    with Recorder(model, path, optimizer=optimizer, every=1, **settings):
        for _ in range(steps):
            for name, parameter in model.named_parameters():
                layer = name.rpartition(".")[0]
                parameter.grad = torch.zeros_like(parameter)
                if name.endswith("weight") and layer in speeds:
                    parameter.grad += torch.tensor(speeds[layer]).reshape(-1, *[1] * (parameter.ndim - 1))
            optimizer.step()
    return open_run(path)


def mlp():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))


SPEEDS = {"0": [0.1, 0.4, 0.2, 0.3], "2": [4.0, 1.0, 3.0, 2.0], "4": [0.5, 0.6, 0.7]}


def kept_units(mask):
    return mask.flatten(1).all(1).nonzero()[:, 0].tolist()


def test_the_filters_that_moved_most_stay_whole(tmp_path):
    model = mlp()
    masks = by_evolution(planted(model, SPEEDS, tmp_path / "run"))(model, density=0.5)
    assert kept_units(masks["0.weight"]) == [1, 3] and kept_units(masks["2.weight"]) == [0, 2]
    assert masks.counts == {"0.weight": 12, "2.weight": 8, "4.weight": 6}


def test_the_outputs_all_stay_and_read_the_units_that_moved_most(tmp_path):
    model = mlp()
    masks = by_evolution(planted(model, SPEEDS, tmp_path / "run"))(model, density=0.5)
    assert masks["4.weight"].T.tolist() == [[True] * 3, [False] * 3, [True] * 3, [False] * 3]


def test_flattened_channels_are_inputs_of_their_filter(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(3 * 4, 2))
    run = planted(model, {"0": [1.0, 3.0, 2.0], "2": [5.0, 1.0]}, tmp_path / "run")
    masks = by_evolution(run)(model, density=1 / 3)
    assert masks["2.weight"].tolist() == [[False] * 4 + [True] * 4 + [False] * 4] * 2
    assert kept_units(masks["0.weight"]) == [1]


def test_exactly_the_share_stays_and_at_most_one_filter_of_a_layer_is_cut(tmp_path):
    model = mlp()
    scorer = by_evolution(planted(model, SPEEDS, tmp_path / "run"))
    for density in (0.05, 0.3, 0.45, 0.77, 1.0):
        masks = scorer(model, density=density)
        assert masks.counts == {name: round(density * mask.numel()) for name, mask in masks.items()}
        for name in ("0.weight", "2.weight"):
            per_filter = masks[name].sum(1)
            assert int(((per_filter > 0) & (per_filter < masks[name].shape[1])).sum()) <= 1


def test_of_equal_filters_those_that_come_first_go_as_in_least_evolved(tmp_path):
    model = mlp()
    run = planted(model, {"0": [1.0, 1.0, 2.0, 1.0]}, tmp_path / "run")
    masks = by_evolution(run)(model, density=0.5)
    gone = [unit for unit in range(4) if not masks["0.weight"][unit].any()]
    assert gone == least_evolved(run, 0.5)["0"].tolist() == [0, 1]


def test_globally_movement_counts_per_weight(tmp_path):
    # of layer 2 every filter moves faster than any of layer 0, so only they and the outputs that read them are left
    model = mlp()
    run = planted(model, SPEEDS, tmp_path / "run")
    masks = by_evolution(run, scope="global")(model, density=28 / 52)
    assert masks.counts == {"0.weight": 0, "2.weight": 16, "4.weight": 12}


def test_another_network_than_the_recorded_one_is_warned_of(tmp_path):
    model = mlp()
    first = copy.deepcopy(model)
    scorer = by_evolution(planted(model, SPEEDS, tmp_path / "run"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scorer(first, density=0.5) == scorer(model, density=0.5)  # at its beginning and at its end
    with pytest.warns(UserWarning, match="neither what"):
        scorer(mlp(), density=0.5)


def test_a_layer_that_was_not_recorded_or_has_another_shape_is_refused(tmp_path):
    model = mlp()
    run = planted(model, SPEEDS, tmp_path / "run", layers=["0", "2"])
    with pytest.raises(InputError, match=r"nothing of '4\.weight'"):
        by_evolution(run)(model, density=0.5)
    wider = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    with pytest.warns(UserWarning), pytest.raises(InputError, match="shape"):
        by_evolution(planted(mlp(), SPEEDS, tmp_path / "other"))(wider, density=0.5)


def test_what_records_is_called_once_for_all_densities_and_cannot_touch_the_network(tmp_path):
    model, calls = mlp(), []
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def recorded(network, data, *, generator):
        calls.append(generator)
        return planted(network, SPEEDS, tmp_path / f"run {len(calls)}")

    scorer, data = by_evolution(recorded), (torch.zeros(2, 6), torch.zeros(2, dtype=torch.long))
    masks = [scorer(model, functional.cross_entropy, data, density=d, generator=7) for d in (0.5, 0.25)]
    assert calls == [7] and kept_units(masks[1]["0.weight"]) == [1]
    scorer(mlp(), functional.cross_entropy, data, density=0.5, generator=7)
    scorer(model, functional.cross_entropy, data, density=0.5, generator=8)
    assert calls == [7, 7, 8]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(InputError, match="recorded run or give one, not a NoneType"):
        by_evolution(lambda *_, **__: None)(model, density=0.5)
