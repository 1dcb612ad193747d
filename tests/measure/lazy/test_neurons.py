import functools

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import data, measure, models, train
from phenoscope.core.errors import InputError


def states(*weights):
    return {10 * step: {"0.weight": weight} for step, weight in enumerate(weights)}


def two_units():
    return nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(inplace=True))


def test_flips_are_of_pre_activations_and_not_of_weights():
    start = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # the first unit turns by less than the inputs lie from its edge, though a weight changes its sign; the second turns
    # over the second input
    now = torch.tensor([[1.0, -0.5], [-1.0, 0.5]])
    x = torch.tensor([[1.0, 1.0], [1.0, 0.1], [-1.0, -1.0], [0.5, 1.5]])
    found = measure.lazy_neurons(two_units(), states(start, now), x)
    expected = ((x @ start.T > 0) != (x @ now.T > 0)).double().mean()
    assert found.flips.values.tolist() == [[0.0], [float(expected)]]
    assert int(((start < 0) != (now < 0)).sum()) == 2 and 0 < float(expected) * 8 != 2
    np.testing.assert_allclose(found.largest, [[0.0], [np.sqrt(1.25)]])
    np.testing.assert_allclose(found["median"], [[0.0], [(0.5 + np.sqrt(1.25)) / 2]])
    np.testing.assert_allclose(found.change, [[0.0], [np.sqrt(1.5 / 2)]])
    assert found.step.values.tolist() == [0, 10] and found.weight.item() == "0.weight"


def test_a_unit_turned_over_flips_everywhere_and_a_longer_one_nowhere():
    start = torch.randn(2, 2, generator=torch.Generator().manual_seed(0))
    x = data.sphere(50, 2, generator=0)
    found = measure.lazy_neurons(two_units(), states(start, -start, 3 * start), x)
    assert found.flips.values[:, 0].tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_allclose(found.change.values[:, 0], [0, 2, 2], rtol=1e-6)  # float32


def test_convolutions_and_several_rectifiers_and_batches_are_counted_whole():
    network = models.cnn((1, 8, 8), 2, width=2, generator=0)
    x = torch.randn(2500, 1, 8, 8, generator=torch.Generator().manual_seed(1))  # three passes
    other = models.cnn((1, 8, 8), 2, width=2, generator=1).state_dict()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    found = measure.lazy_neurons(network, {0: before, 5: other}, x)
    assert network.training and all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    rectifiers = [name for name, module in network.named_modules() if isinstance(module, nn.ReLU)]
    assert found.rectifier.values.tolist() == rectifiers
    first = rectifiers[0]
    seen = []
    for state in (before, other):
        twin = models.cnn((1, 8, 8), 2, width=2, generator=0).eval()
        twin.load_state_dict(state)
        twin.get_submodule(first).register_forward_hook(lambda _, __, out: seen.append(out > 0))
        twin(x)
    assert float(found.flips.sel(rectifier=first, step=5)) == pytest.approx(float((seen[0] != seen[1]).double().mean()))


def test_wide_networks_are_lazier():
    x = data.sphere(20, 8, generator=0)
    y = torch.where(x[:, :1] * x[:, 1:2] > 0, 1.0, -1.0)

    def trained(width):
        network = models.mlp((8,), 1, width=width, depth=1, parametrization="ntk", generator=0)
        optimizer = functools.partial(torch.optim.SGD, lr=0.5)
        run = train.fit(
            network, (x, y), steps=60, optimizer=optimizer, loss_fn=nn.MSELoss(), batch_size=None,
            states=train.States(at=20), generator=0,
        )  # fmt: skip
        return measure.lazy_neurons(network, run.states, x)

    narrow, wide = trained(32), trained(2048)
    for name in ("flips", "largest", "median", "change"):
        at = (narrow[name].isel(step=-1).values[0], wide[name].isel(step=-1).values[0])
        assert at[1] < 0.5 * at[0], name  # a width 64 times as large: 8 in theory
    assert bool((wide.flips.isel(step=0) == 0).all()) and bool((wide.flips.isel(step=-1) > 0).all())


def test_what_cannot_flip_is_refused():
    x = torch.ones(3, 2)
    with pytest.raises(InputError, match="no rectifier"):
        measure.lazy_neurons(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), {}, x)
    with pytest.raises(InputError, match="no states"):
        measure.lazy_neurons(two_units(), {}, x)
    with pytest.raises(InputError, match="not of this network"):
        measure.lazy_neurons(two_units(), {0: {"1.weight": x}}, x)
    with pytest.raises(InputError, match="needs inputs"):
        measure.lazy_neurons(two_units(), states(torch.eye(2)), x[:0])


def test_the_network_is_put_back_after_an_error():
    network = two_units()
    before = network[0].weight.detach().clone()
    bad = {0: {"0.weight": torch.zeros(2, 2)}, 1: {"other": torch.zeros(2, 2)}}
    with pytest.raises(InputError, match="not of this network"):
        measure.lazy_neurons(network, bad, torch.ones(3, 2))
    assert torch.equal(network[0].weight, before)
