from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional

from phenoscope import robust
from phenoscope.core.errors import InputError
from phenoscope.robust.training.trades import divergence, worst_neighbor


def small(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).to(dtype)


def batch(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(7, 2, 3, generator=generator, dtype=dtype), torch.randint(4, (7,), generator=generator)


def test_the_loss_is_what_torchs_distributions_give_with_the_clean_prediction_first():
    model, (x, y) = small(), batch()
    settings = {"eps": 0.3, "steps": 5, "generator": 3}
    found = robust.trades_loss(model, x, y, beta=2.5, **settings)
    x_adv = worst_neighbor(model, x, y, **settings)
    clean, moved = Categorical(logits=model(x)), Categorical(logits=model(x_adv))
    wanted = functional.cross_entropy(model(x), y) + 2.5 * kl_divergence(clean, moved).mean()
    swapped = functional.cross_entropy(model(x), y) + 2.5 * kl_divergence(moved, clean).mean()
    assert found.item() == pytest.approx(wanted.item(), abs=1e-6)
    assert abs(found.item() - swapped.item()) > 1e-4


def test_the_gradient_flows_through_both_predictions():
    model, (x, y) = small(), batch()
    settings = {"eps": 0.3, "steps": 5, "generator": 3}
    x_adv = worst_neighbor(model, x, y, **settings)
    robust.trades_loss(model, x, y, beta=2.0, **settings).backward()
    weight = model[1].weight
    found = weight.grad.clone()
    step = torch.zeros_like(weight)
    step[2, 3] = 1e-6

    def loss():  # the neighbor held where it was: the ascent is no part of the gradient
        with torch.no_grad():
            clean, moved = model(x), model(x_adv)
            return functional.cross_entropy(clean, y) + 2.0 * divergence(clean, moved).mean()

    with torch.no_grad():
        weight += step
        up = loss()
        weight -= 2 * step
        down = loss()
    assert found[2, 3].item() == pytest.approx(((up - down) / 2e-6).item(), rel=1e-5)  # of central differences


def test_the_ascent_leaves_the_point_where_the_divergence_has_no_slope():
    model, (x, y) = small(), batch()
    x_adv = worst_neighbor(model, x, y, eps=0.3, generator=0)
    found = divergence(model(x), model(x_adv))
    random = divergence(model(x), model(x + 0.3 * torch.randn_like(x).sign()))
    assert (found > 1e-3).all() and found.mean() > 2 * random.mean()
    assert (x_adv - x).abs().max() <= 0.3 + 1e-12


def test_the_ascent_runs_in_evaluation_mode_and_the_loss_in_the_models_own():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6), nn.Linear(6, 4)).double().train()
    x, y = batch()
    robust.trades_loss(model, x, y, eps=0.1, steps=7, generator=0)
    assert model.training
    assert model[1].num_batches_tracked == 2  # once for the examples, once for their neighbors


def test_it_is_an_objective_under_vmap():
    nets = [small(), small()]
    tensors, _ = torch.func.stack_module_state(nets)
    x, y = batch()
    loss = partial(robust.trades_loss, eps=0.2, steps=4)
    tensors = {name: value.detach().requires_grad_() for name, value in tensors.items()}

    def one(own, x, y):
        return loss(lambda z: torch.func.functional_call(nets[0], own, (z,)), x, y)

    found = torch.func.vmap(one, in_dims=(0, None, None), randomness="different")(tensors, x, y)
    found.sum().backward()
    assert found.shape == (2,) and tensors["1.weight"].grad.abs().sum() > 0
    alone = loss(nets[0], x, y, generator=0)
    assert torch.allclose(found, alone.expand(2), rtol=1e-2)  # the tiny first step is drawn anew


def test_the_papers_example_where_accuracy_and_robustness_disagree():
    # eta(x) is 0 on the even and 1 on the odd intervals of length eps: the Bayes rule is never wrong and always broken,
    # the constant one is wrong half of the time and nothing moves it (Zhang et al., section 3.2)
    eps = 0.1
    x = ((torch.arange(1000) + 0.5) / 1000)[:, None]
    y = (x[:, 0] / eps).floor().long() % 2

    class Bayes(nn.Module):
        def forward(self, x):  # of period 2 eps, and positive on the odd intervals
            score = -torch.sin(torch.pi * x[:, 0] / eps)
            return torch.stack([torch.zeros_like(score), score], 1)

    class Constant(nn.Module):
        def forward(self, x):
            return torch.stack([torch.zeros(len(x)), torch.ones(len(x))], 1) + 0 * x.sum()

    found = robust.error_decomposition(Bayes(), (x, y), eps=eps, norm="inf", generator=0)
    assert found.natural == 0 and found.robust_error > 0.99
    found = robust.error_decomposition(Constant(), (x, y), eps=eps, norm="inf", generator=0)
    assert found.natural == 0.5 and found.robust_error == 0.5


def test_a_negative_weight_is_refused():
    model, (x, y) = small(), batch()
    with pytest.raises(InputError, match="beta"):
        robust.trades_loss(model, x, y, eps=0.1, beta=-1.0)
