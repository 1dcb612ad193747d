import functools

import numpy as np
import pytest
import torch

from phenoscope import data, models, train
from phenoscope.core.errors import InputError
from phenoscope.measure import deficit_sweep

SPLIT = data.digits(train=300)
MLP = functools.partial(models.mlp, width=16)
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)


def same(pair):
    return pair


def without_classes(pair):
    return pair[0], torch.zeros_like(pair[1])


def sweep(**settings):
    common = {
        "deficits": {"same": same}, "windows": [(0, 20)], "recovery": 30, "optimizer": SGD, "batch_size": 32,
        "generator": 0,
    }  # fmt: skip
    return deficit_sweep(MLP, SPLIT.train, SPLIT.test, **common | settings)


@pytest.mark.parametrize("schedule", [None, train.linear_decay(30)])
def test_a_deficit_that_takes_nothing_costs_exactly_nothing(schedule):
    found = sweep(windows=[(0, 0), (0, 20), (10, 25)], repeats=2, schedule=schedule)
    assert dict(found.sizes) == {"deficit": 1, "window": 3, "repeat": 2}
    assert bool((found.sensitivity == 0).all())
    assert found.start.values.tolist() == [0, 0, 10] and found.stop.values.tolist() == [0, 20, 25]


def test_a_window_that_lasts_leaves_what_was_learned_in_it():
    """With a single step of recovery the network has learned nothing but one class."""
    found = sweep(deficits={"none": without_classes, "same": same}, windows=[(0, 100)], recovery=1)
    assert found.accuracy.sel(deficit="none") < 0.2 and found.accuracy.sel(deficit="same") > 0.7
    healed = sweep(deficits={"none": without_classes}, windows=[(0, 100)], recovery=300)
    assert healed.accuracy > 0.7


def test_networks_are_those_that_fit_makes_and_the_optimizer_goes_on():
    """An unbroken training by hand, with other labels in the window."""
    x, y = SPLIT.train
    (seed,) = torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(0)).tolist()
    model = train.build(MLP, shape=(1, 8, 8), num_classes=10, generator=seed)
    updater, step = SGD(model.parameters()), 0
    generator = torch.Generator().manual_seed(seed)
    while step < 45:
        for rows in torch.randperm(300, generator=generator).split(32):
            labels = torch.zeros_like(y) if 5 <= step < 15 else y
            updater.zero_grad()
            torch.nn.functional.cross_entropy(model(x[rows]), labels[rows]).backward()
            updater.step()
            step += 1
            if step == 45:
                break
    found = sweep(deficits={"none": without_classes}, windows=[(5, 15)])
    assert found.accuracy.item() == train.accuracy(model, SPLIT.test)


def test_recovery_is_as_long_for_every_window_and_the_rate_starts_anew_at_its_end(monkeypatch):
    module = deficit_sweep.__globals__
    calls, rates = [], []

    def seen(model, feed, **settings):
        calls.append(settings["steps"])
        rates.append([settings["schedule"](step) for step in range(settings["steps"])])
        return module_fit(model, feed, **settings)

    module_fit = module["fit"]
    monkeypatch.setitem(module, "fit", seen)
    sweep(windows=[(0, 5), (5, 25)], schedule=train.linear_decay(30))
    assert sorted(calls) == [35, 35, 55, 55]  # deficit and control of either window
    for rate in rates:
        assert all(each == 1 for each in rate[:-29]) and rate[-1] == pytest.approx(1 / 30)
    np.testing.assert_allclose(rates[0][-30:], [1 - step / 30 for step in range(30)])


def test_without_a_schedule_one_control_serves_all_windows(monkeypatch):
    module = deficit_sweep.__globals__
    calls = []
    module_fit = module["fit"]
    monkeypatch.setitem(module, "fit", lambda *a, **s: calls.append(s["steps"]) or module_fit(*a, **s))
    sweep(windows=[(0, 5), (0, 10)])
    assert calls == [40, 35, 40]


def test_wrong_settings_are_named():
    for settings, words in (
        ({"deficits": {}}, "at least one deficit"),
        ({"windows": []}, "at least one deficit"),
        ({"recovery": 0}, "at least one deficit"),
        ({"windows": [(5, 2)]}, "from 5 to 2"),
        ({"deficits": {"half": lambda pair: (pair[0][:2], pair[1][:2])}}, "'half' makes data of another shape"),
    ):
        with pytest.raises(InputError, match=words):
            sweep(**settings)
