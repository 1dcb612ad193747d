import functools

import pytest
import torch
from torch import nn

from phenoscope import models
from phenoscope.core.errors import InputError
from phenoscope.prune import (
    Masks,
    Ticket,
    one_shot,
    perturb_ticket,
    perturbation_size,
    random_mask_control,
    reinit_control,
)

make = functools.partial(models.mlp, (1, 8, 8), 10, width=(24, 16))


KINDS = (
    "resign", "shuffle-layer", "shuffle-layer-signs-kept", "shuffle-filter", "shuffle-filter-signs-kept", "noise",
    "reinit", "reinit-same-sign", "init-magnitude", "init-sign",
)  # fmt: skip
START = make(generator=9).state_dict()


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


def disturbed(one, kind, **settings):
    return perturb_ticket(one, kind, **{"init_state": START, "make_model": make, "generator": 3, **settings})


def survivors(one, name):
    return one.init_state[name][one.masks[name]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_disturbance_moves_survivors_and_nothing_else(kind):
    one = ticket()
    before = {name: value.clone() for name, value in one.init_state.items()}
    other = disturbed(one, kind)
    assert other.masks is one.masks and (other.density, other.seed) == (one.density, 5)
    for name, value in one.init_state.items():
        assert torch.equal(value, before[name])
        if name in one.masks:
            mask = one.masks[name]
            assert torch.equal(other.init_state[name][~mask], value[~mask])
            assert not torch.equal(other.init_state[name][mask], value[mask])
        else:
            assert torch.equal(other.init_state[name], value)  # biases keep the values of that step
    again, third = disturbed(one, kind), disturbed(one, kind, generator=4)
    first, second, drawn = (each.init_state["linear1.weight"] for each in (other, again, third))
    assert torch.equal(first, second)
    assert torch.equal(first, drawn) is kind.startswith("init")
    assert perturbation_size(one, other, init_state=START) > 0


@pytest.mark.parametrize("name", ["linear1.weight", "linear2.weight", "logits.weight"])
def test_each_disturbance_keeps_what_it_says(name):
    one = ticket()
    was, start = survivors(one, name), START[name][one.masks[name]]
    now = {kind: survivors(disturbed(one, kind), name) for kind in KINDS}
    for kind in ("shuffle-layer", "shuffle-filter"):
        assert torch.equal(now[kind].sort().values, was.sort().values)  # bit for bit
        assert torch.equal(now[f"{kind}-signs-kept"].abs().sort().values, was.abs().sort().values)
    for kind in ("shuffle-layer-signs-kept", "shuffle-filter-signs-kept", "reinit-same-sign", "init-magnitude"):
        assert torch.equal(now[kind].sign(), was.sign())
    assert torch.equal(now["resign"].abs(), was.abs())
    assert 0.3 < (now["resign"].sign() == was.sign()).float().mean() < 0.7 or len(was) < 60
    assert torch.equal(now["init-magnitude"].abs(), start.abs())
    assert torch.equal(now["init-sign"], was.abs() * start.sign())
    assert torch.equal(now["reinit"].abs(), now["reinit-same-sign"].abs())


def test_a_shuffle_of_filters_stays_within_each_and_one_of_layers_does_not():
    one = ticket()
    weight, mask = one.init_state["linear1.weight"], one.masks["linear1.weight"]
    for kind, stays in (("shuffle-filter", True), ("shuffle-layer", False)):
        moved = disturbed(one, kind).init_state["linear1.weight"]
        rows = [torch.equal(moved[i][mask[i]].sort().values, weight[i][mask[i]].sort().values) for i in range(24)]
        assert all(rows) is stays
    # the trap: a shuffle of all weights, pruned ones too, would be another mask
    held = weight * mask
    naive = held.flatten()[torch.randperm(held.numel(), generator=torch.Generator().manual_seed(0))].reshape(held.shape)
    assert not torch.equal(naive != 0, mask)


def test_every_place_of_a_shuffle_is_as_likely():
    mask = torch.ones(2, 4, dtype=torch.bool)
    mask[0, 3] = False
    one = Ticket(Masks({"weight": mask}), {"weight": torch.arange(1.0, 9.0).reshape(2, 4)}, 7 / 8)
    for kind, mean in (("shuffle-filter", 2.0), ("shuffle-layer", (36 - 4) / 7)):
        draws = [perturb_ticket(one, kind, generator=seed).init_state["weight"][0, 0].item() for seed in range(600)]
        # a mean of 600 draws with standard deviation under 2.4 stays within 4 x 0.1
        assert abs(sum(draws) / 600 - mean) < 0.4


def test_noise_is_measured_in_the_spread_of_the_layers_initialization():
    one = ticket()
    assert all(
        torch.equal(value, one.init_state[name]) for name, value in disturbed(one, "noise", scale=0).init_state.items()
    )
    for scale in (0.5, 1.0, 3.0):
        sizes = [
            perturbation_size(one, disturbed(one, "noise", scale=scale, generator=seed), init_state=START)
            for seed in range(4)
        ]
        # the sample deviation of 4 x 624 normal numbers is within 5 % of the true one (standard error 1.4 %)
        assert abs(sum(sizes) / 4 / scale - 1) < 0.05
    by_hand = one.init_state["logits.weight"] + 2 * START["logits.weight"].std(correction=0)
    shifted = Ticket(one.masks, {**one.init_state, "logits.weight": by_hand}, one.density)
    share = one.masks.counts["logits.weight"] / sum(one.masks.counts.values())
    # of numbers that are 2 with this share and 0 otherwise; single precision
    expected = 2 * (share * (1 - share)) ** 0.5
    assert perturbation_size(one, shifted, init_state=START) == pytest.approx(expected, rel=1e-5)
    assert perturbation_size(one, one, init_state=START) == 0


def test_a_disturbance_works_on_convolutions_and_half_precision():
    model = models.cnn((1, 8, 8), 10, width=(4, 6), generator=0).to(torch.bfloat16)
    masks = one_shot(model, density=0.4)
    one = Ticket(masks, model.state_dict(), masks.density)
    for kind in ("shuffle-filter", "noise", "resign"):
        other = perturb_ticket(one, kind, init_state=model.state_dict(), generator=0)
        assert all(value.dtype == torch.bfloat16 for name, value in other.init_state.items() if name in masks)


def test_what_a_disturbance_lacks_is_named():
    one = ticket()
    constant = {name: torch.ones_like(value) for name, value in START.items()}
    for call, word in (
        (lambda: perturb_ticket(one, "rotate"), "kind must be one of"),
        (lambda: perturb_ticket(one, "noise"), "init_state="),
        (lambda: perturb_ticket(one, "init-sign"), "init_state="),
        (lambda: perturb_ticket(one, "reinit"), "make_model="),
        (lambda: perturb_ticket(one, "noise", init_state=START, scale=-1.0), "scale"),
        (lambda: perturb_ticket(one, "noise", init_state={"other": torch.ones(1)}), "linear1.weight"),
        (lambda: perturb_ticket(one, "reinit", make_model=lambda: nn.Linear(3, 2)), "another architecture"),
        (lambda: perturbation_size(one, random_mask_control(one, generator=0), init_state=START), "different masks"),
        (lambda: perturbation_size(one, one, init_state=constant), "no spread"),
    ):
        with pytest.raises(InputError, match=word):
            call()
