import functools

import pytest
import torch
from torch import nn

from phenoscope import models
from phenoscope.core.errors import InputError
from phenoscope.prune import Ticket, one_shot, random_mask_control, reinit_control

make = functools.partial(models.mlp, (1, 8, 8), 10, width=(24, 16))


def ticket():
    model = make(generator=0)
    masks = one_shot(model, density=0.3)
    return Ticket(masks, model.state_dict(), masks.density, seed=5)


def test_the_first_control_has_the_mask_and_other_weights_of_the_same_law():
    one = ticket()
    control = reinit_control(one, make, generator=1)
    assert control.masks is one.masks and (control.density, control.seed) == (one.density, 5)
    fresh = make(generator=1).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in control.init_state.items())
    assert not torch.equal(control.init_state["linear1.weight"], one.init_state["linear1.weight"])
    network = control.network(make(generator=2))
    assert (network.linear1.weight != 0).sum() == one.masks.counts["linear1.weight"]


def test_a_factory_without_a_generator_is_seeded_too():
    one = ticket()
    plain = functools.partial(models.mlp, (1, 8, 8), 10, width=(24, 16), init="torch")
    a, b = (reinit_control(one, lambda: plain(), generator=3).init_state["linear1.weight"] for _ in range(2))
    assert torch.equal(a, b)


def test_another_architecture_is_refused():
    with pytest.raises(InputError, match="another architecture"):
        reinit_control(ticket(), lambda: nn.Linear(3, 2))


def test_the_second_control_has_the_weights_and_a_random_mask_with_the_same_counts():
    one = ticket()
    control, again, other = (random_mask_control(one, generator=seed) for seed in (1, 1, 2))
    assert control.masks.counts == one.masks.counts
    assert control.masks == again.masks != other.masks
    assert control.init_state is one.init_state
    # a weight is kept by two independent choices of the share p with probability p^2; sd of the share under 0.006
    linear1 = (control.masks["linear1.weight"] & one.masks["linear1.weight"]).float().mean()
    expected = one.masks["linear1.weight"].float().mean() ** 2
    assert abs(linear1 - expected) < 0.03
