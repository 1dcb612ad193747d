import functools

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from phenoscope import data, measure, models, train
from phenoscope.lab.seeds import seed_for
from phenoscope.studies.benches import information as bench


class Lab:
    device = torch.device("cpu")

    def seed(self, *path):
        return seed_for(0, *path)


def small(**knobs):
    return bench.trained(
        Lab(), model=functools.partial(models.mlp, width=(5, 4, 3)), dataset=data.icosahedral_bits, steps=8,
        recordings=4, seeds=2, **knobs,
    )  # fmt: skip


@pytest.mark.parametrize(("steps", "count"), [(4000, 25), (5000, 25), (300, 5), (130_000, 25), (3, 25)])
def test_looks_are_different_steps_from_the_first_to_the_last(steps, count):
    found = bench.looks(steps, count)
    assert found[0] == 0 and found[-1] == steps and found == sorted(set(found))
    assert len(found) in (min(count, steps + 1), min(count, steps + 1) + 1)
    later = np.diff(np.log(found[len(found) // 2 :]))
    assert later.max() < 2 * later.min() + 1  # no gap where rounding no longer matters


def test_both_kinds_of_units_see_the_same_data_and_start_at_their_own_variance():
    tanh, splits = small(activation="tanh")
    relu, others = small(activation="relu")
    assert all(torch.equal(a.train[0], b.train[0]) for a, b in zip(splits, others, strict=True))
    assert not torch.equal(splits[0].train[0], splits[1].train[0])  # each seed its own training part
    start = [fleet.states[0]["linear1.weight"] for fleet in (tanh, relu)]
    torch.testing.assert_close(start[1], start[0] * 2**0.5)
    assert list(tanh.states) == bench.looks(8, 4)


def test_the_plane_holds_hidden_layers_in_order_and_the_softmax_on_all_inputs():
    fleet, splits = small(activation="tanh")
    found = bench.plane(fleet, splits, units=nn.Tanh)
    assert found.input.dims == ("seed", "step", "layer")
    assert found.layer.values.tolist() == ["act1", "act2", "act3", "softmax"]
    assert (found.ceiling == 12).all()  # 4096 inputs, not those of a part
    network = fleet.at(8)[1]
    scores = torch.softmax(train.outputs(network, splits[1].inputs), 1)
    own = measure.mi_binned(scores, splits[1].probabilities, range=(0, 1))
    assert found.sel(layer="softmax").isel(seed=1, step=-1).input == pytest.approx(own.input, abs=0.01)
    assert bench.last_but_one(fleet, nn.Tanh) == "act2"
    few = bench.plane(fleet, splits[:1], units=nn.Tanh, layers=["act2"], steps=[0, 8], bins=5)
    assert few.step.values.tolist() == [0, 8] and few.sizes["layer"] == 1
    assert (few.input <= found.input.sel(layer="act2").isel(seed=0).max()).all()


def test_labels_of_other_data_are_taken_as_certain():
    split = data.digits(train=100)
    x, y = bench.inputs(split)
    assert len(x) == len(split.train[1]) + len(split.test[1]) == len(y) and y.ndim == 1
    soft = data.icosahedral_bits(information=0.9)
    assert bench.inputs(soft)[1].shape == (4096, 2)


def test_compression_is_the_largest_minus_the_last():
    told = xr.DataArray([[1.0, 5.0, 2.0], [1.0, 2.0, 3.0]], dims=("seed", "step"), coords={"step": [0, 1, 2]})
    assert bench.compression(told).values.tolist() == [3.0, 0.0]
