import functools

import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.train import build


def plain():
    return nn.Linear(4, 3)


def named(shape, num_classes, *, width=8, generator=None):
    generator = torch.Generator().manual_seed(generator)
    layer = nn.Linear(shape[0], width)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    return nn.Sequential(layer, nn.Linear(width, num_classes))


def test_a_factory_without_arguments_is_as_reproducible_as_one_with_a_generator():
    for make, settings in ((plain, {}), (named, {"shape": (4,), "num_classes": 3})):
        first, again, other = (build(make, generator=seed, **settings) for seed in (0, 0, 1))
        for name, value in first.state_dict().items():
            assert torch.equal(value, again.state_dict()[name])
            assert not torch.equal(value, other.state_dict()[name])


def test_torchs_own_generator_is_left_as_it_was_and_governs_without_a_seed():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    build(plain, generator=0)
    assert torch.equal(torch.get_rng_state(), state)
    first = build(plain)
    torch.manual_seed(3)
    assert torch.equal(build(plain).weight, first.weight)


def test_a_factory_gets_what_it_names_and_nothing_else():
    network = build(named, shape=(5,), num_classes=2, width=7, generator=0)
    assert network[0].weight.shape == (7, 5) and network[1].weight.shape == (2, 7)
    assert build(plain, shape=(5,), num_classes=2, generator=0).weight.shape == (3, 4)
    assert build(nn.Linear, in_features=2, out_features=1).weight.shape == (1, 2)  # a class is a factory


def test_what_partial_has_bound_stays_bound_apart_from_knobs():
    bound = functools.partial(named, num_classes=4, width=2)
    assert build(bound, shape=(3,), num_classes=9, generator=0)[1].weight.shape == (4, 2)
    assert build(bound, shape=(3,), width=6, generator=0)[1].weight.shape == (4, 6)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="plain takes no 'width'"):
        build(plain, width=3)
    with pytest.raises(InputError, match="named needs 'shape'"):
        build(named, num_classes=3)
    with pytest.raises(InputError, match="gave a int"):
        build(lambda: 3)
    with pytest.raises(InputError, match="not a network"):
        build(plain())
    with pytest.raises(InputError, match="callable"):
        build(3)
