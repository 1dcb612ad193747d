import copy
import functools

import numpy as np
import pytest
import torch
import xarray as xr

from phenoscope import data, prune, train
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import tickets as bench
from phenoscope.studies.empirical import rewinding as module

OBSERVABLES = module.study.observables
WAYS = [module.RATE, module.WEIGHT, module.FINETUNE]


def result(densities=(0.2, 0.1, 0.05, 0.02)):
    rng = np.random.default_rng(0)
    base = xr.DataArray(rng.uniform(0.4, 0.6, (3, len(densities))), {"density": list(densities)}, ("seed", "density"))
    by = xr.DataArray([0.3, 0.2, 0.0], {"way": WAYS}, "way")
    return xr.Dataset({"accuracy": base + by, "dense_accuracy": ("seed", [0.6] * 3)})


def test_ways_are_compared_seed_by_seed_at_the_registered_densities():
    one = result()
    for claim, expected in zip(OBSERVABLES, (0.3, 0.2, 0.1), strict=True):
        found = OBSERVABLES[claim](one)
        assert found.dims == ("seed",)
        np.testing.assert_allclose(found, expected)
    for density, claims in ((0.1, (0,)), (0.05, (1,)), (0.2, ())):
        marked = result()
        marked.accuracy.loc[{"density": density, "way": module.FINETUNE}] -= 1
        changed = [float(OBSERVABLES[claim](marked).mean() - OBSERVABLES[claim](one).mean()) for claim in OBSERVABLES]
        np.testing.assert_allclose(changed, [number in claims for number in range(3)], atol=1e-12)
    thirds = result()
    thirds.accuracy.loc[{"density": 0.02, "way": module.RATE}] += 0.3
    np.testing.assert_allclose(OBSERVABLES["lr-rewind-no-worse-than-weight-rewind"](thirds), 0.2)


def test_densities_that_were_left_out_do_not_apply():
    for claim in OBSERVABLES:
        assert "density of" in OBSERVABLES[claim](result((0.3,))).attrs["not_applicable"]


def test_every_way_has_the_steps_it_says_and_the_strongest_baseline_stands_beside():
    schedule = train.step_decay(1500)
    whole = module.ways(schedule, steps=1500, back=1500, early=75)
    assert [plan.steps for plan in whole.values()] == [1500, 1425, 1500, 1500, 1500]
    assert [plan.start for plan in whole.values()] == [None, 75, None, None, None]
    # the trap: every rate of the schedule stands among the constant ones, none of them absurdly small alone
    constants = list(whole.values())[2:]
    assert [round(plan.schedule(0), 6) for plan in constants] == [0.01, 0.1, 1]
    assert all(plan.schedule(0) == plan.schedule(1499) for plan in constants)
    short = module.ways(schedule, steps=1500, back=375, early=75)
    assert {plan.steps for plan in short.values()} == {375}  # an equal budget
    assert short[module.WEIGHT].start == 1125


@pytest.fixture(scope="module")
def one_seed():
    common = dict(model=bench.mlp, dataset=data.digits, densities=(0.3, 0.1), steps=80, seed=0)
    return module.one_seed(Lab(0), **common)


def test_the_fleets_do_what_retrain_does(one_seed):
    lab, steps = Lab(0), 80
    split, make_model = bench.setting(lab, model=bench.mlp, dataset=data.digits, seed=0, validation=False)
    assert len(split.train[1]) == 1400  # nothing is held out
    network = make_model(generator=lab.seed("network", 0))
    recipe, order = bench.training(steps=steps), lab.seed("order", 0)
    dense = train.fit(network, split.train, states=train.States([4]), generator=order, **recipe)
    assert float(one_seed.dense_accuracy) == train.accuracy(network, split.test)
    masks = prune.one_shot(network, density=0.1)
    again = functools.partial(prune.retrain, data=split.train, masks=masks, generator=order, **recipe)
    for way, mode in ((module.RATE, "lr-rewind"), (module.FINETUNE, "finetune")):
        model = copy.deepcopy(network)
        again(model, mode=mode)
        found = float(one_seed.accuracy.sel(way=way, density=0.1))
        assert found == pytest.approx(train.accuracy(model, split.test), abs=0.006)  # sums in another order: 2 of 397
    model = copy.deepcopy(network)
    model.load_state_dict(dense.states[4])
    plan = prune.retraining("weight-rewind", steps=steps, back=76, schedule=recipe["schedule"])
    settings = recipe | {"steps": plan.steps, "schedule": plan.schedule}
    train.fit(model, split.train, masks=masks, generator=order, **settings)
    found = float(one_seed.accuracy.sel(way=module.WEIGHT, density=0.1))
    assert found == pytest.approx(train.accuracy(model, split.test), abs=0.006)


def test_where_only_the_last_rate_is_made_again_rewinding_it_is_fine_tuning(one_seed):
    short = one_seed.short_accuracy
    assert float(short.sel(way=module.RATE)) == float(short.sel(way=module.FINETUNE))  # the control: bit for bit
    assert torch.isfinite(torch.from_numpy(one_seed.accuracy.values)).all()
