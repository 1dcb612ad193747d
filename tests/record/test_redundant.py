"""Which filters are called redundant or least evolved, and what a choice of filters accepts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.record.layers import find_layers
from phenoscope.record.recorder import Recorder
from phenoscope.record.redundant import Filters, least_evolved, redundant, within
from phenoscope.record.run import open_run


def run_of(model, **averages):
    """What `redundant` reads of a run: layers, thresholds, and the time-means of each layer."""
    layers = {each.layer.name: each.layer for each in find_layers(model)[0]}
    means = {name: xr.Dataset({key: ("filter", np.array(v)) for key, v in m.items()}) for name, m in averages.items()}
    layers = {name: layer for name, layer in layers.items() if name in means}
    return SimpleNamespace(
        layers=layers, thresholds=dict.fromkeys(layers, 0.5), metadata={"every": 10}, average=means.__getitem__
    )


def two_layers():
    return nn.ModuleDict({"a": nn.Linear(3, 6), "b": nn.Linear(3, 6)})


def test_filters_without_gradient_are_exactly_the_redundant_ones_of_a_recorded_run(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4))
    frozen = torch.tensor([1, 4, 6])
    model[0].weight.register_hook(lambda gradient: gradient.index_fill(0, frozen, 0))
    x, y = torch.randn(32, 3, 6, 6), torch.randint(4, (32,))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with Recorder(model, tmp_path / "run", optimizer=optimizer, every=5, threshold=1e-3):
        for _ in range(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    run = open_run(tmp_path / "run")
    assert redundant(run)["0"].tolist() == frozen.tolist()
    assert least_evolved(run, 3 / 8)["0"].tolist() == frozen.tolist()
    assert within(model, redundant(run)) == redundant(run)


def test_limit_is_one_minus_epsilon_in_spite_of_rounding():
    idle = [0.95 - 1e-15, 0.95, 0.949, 1.0, 0.0, 0.94]
    run = run_of(two_layers(), a={"idle": idle})
    assert redundant(run)["a"].tolist() == [0, 1, 3]
    assert redundant(run, epsilon=0)["a"].tolist() == [3]


def test_filters_without_a_record_are_never_chosen():
    nan = np.nan
    run = run_of(two_layers(), a={"idle": [nan, 1.0, 0, 0, 0, 0], "distance": [nan, 2.0, nan, 1.0, nan, nan]})
    assert redundant(run)["a"].tolist() == [1]
    assert least_evolved(run, 1.0)["a"].tolist() == [1, 3]


def test_frozen_layers_are_left_out():
    model = two_layers()
    model["a"].weight.requires_grad_(False)
    still = {"idle": np.ones(6), "distance": np.zeros(6)}
    run = run_of(model, a=still, b={"idle": np.zeros(6), "distance": np.ones(6)})
    assert list(redundant(run)) == list(least_evolved(run, 0.5)) == ["b"]


def test_layers_that_are_mostly_redundant_are_warned_of_once_by_name():
    run = run_of(two_layers(), a={"idle": [1, 1, 1, 1, 0, 0]}, b={"idle": [1, 1, 1, 0, 0, 0]})
    with pytest.warns(UserWarning, match=r"in a \(tau 0.5\).*threshold=") as caught:
        redundant(run)
    assert len(caught) == 1  # one for all; b has just half


def test_least_evolved_takes_the_rounded_share_and_first_of_equals():
    run = run_of(two_layers(), a={"distance": [3.0, 1.0, 1.0, 1.0, 0.5, 9.0]})
    assert least_evolved(run, 0.5)["a"].tolist() == [1, 2, 4]
    assert least_evolved(run, 0.0)["a"].tolist() == []
    assert least_evolved(run, 0.1)["a"].tolist() == [4]


@pytest.mark.parametrize("bad", [-0.1, 1.0, float("nan")])
def test_bad_epsilon_is_refused(bad):
    with pytest.raises(InputError, match="epsilon"):
        redundant(run_of(two_layers()), epsilon=bad)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_bad_share_is_refused(bad):
    with pytest.raises(InputError, match="share"):
        least_evolved(run_of(two_layers()), bad)


def test_filters_are_sorted_read_only_and_comparable():
    filters = Filters({"a": [5, 0, 3], "b": []})
    assert filters["a"].tolist() == [0, 3, 5]
    assert filters["a"].dtype == filters["b"].dtype == np.int64
    assert filters.counts == {"a": 3, "b": 0}
    assert repr(filters) == "<Filters: 3 in 1 of 2 layers>"
    assert filters == {"a": np.array([0, 3, 5]), "b": []}
    assert filters != {"a": [0, 3, 5]}
    assert filters != Filters({"a": [0, 3], "b": []})
    with pytest.raises(ValueError, match="read-only"):
        filters["a"][0] = 1


def test_only_restricts_and_names_what_is_missing():
    filters = Filters({"a": [1], "b": [2]})
    assert list(filters.only(["b"])) == ["b"]
    with pytest.raises(InputError, match=r"no layer 'c' among 'a', 'b'"):
        filters.only(["c"])


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([-1], "include -1"),
        ([1, 2, 1], "include 1 twice"),
        ([0.5], "integers"),
        ([True, False], "integers"),
        (3, "list"),
    ],
)
def test_bad_indices_are_named(indices, message):
    with pytest.raises(InputError, match=f"filters of 'a'.*{message}"):
        Filters({"a": indices})


def test_choice_is_put_in_network_order_and_checked_against_the_network():
    assert list(within(two_layers(), {"b": [0], "a": [1]})) == ["a", "b"]
    with pytest.raises(InputError, match="no layer 'c'; its layers are 'a', 'b'"):
        within(two_layers(), {"c": [0]})
    with pytest.raises(InputError, match="'a' has 6 filters; there is no filter 6"):
        within(two_layers(), {"a": [6]})


def test_choice_from_a_run_of_another_shape_is_refused():
    recorded = {each.layer.name: each.layer for each in find_layers(two_layers())[0]}
    other = nn.ModuleDict({"a": nn.Linear(3, 8), "b": nn.Linear(3, 6)})
    with pytest.raises(InputError, match=r"'a' has shape \(8, 3\), but \(6, 3\) in the run"):
        within(other, Filters({"a": [0]}, recorded))
