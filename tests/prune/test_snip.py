import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope import data
from phenoscope.core.errors import InputError
from phenoscope.prune import Masks, keep_top, snip, snip_scores
from phenoscope.prune.snip import signed_sensitivity

CROSS_ENTROPY = functional.cross_entropy


def mlp(*sizes, bias=True, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Flatten()]
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b, bias=bias), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight)
    return nn.Sequential(*layers[:-1])


def batch(n=40, seed=0, classes=10):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 4, 4, generator=rng), torch.randint(classes, (n,), generator=rng)


def test_one_weight_has_its_closed_form():
    # L = (w x - y)^2, so w dL/dw = 2 w x (w x - y); with the second weight -1, x = (3, 0.5)
    model = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, -1.0]]))
    x, y = torch.tensor([[3.0, 0.5]]), torch.tensor([[1.0]], dtype=torch.float64)
    residual = 2 * 3 - 0.5 - 1
    expected = torch.tensor([[2 * 2 * 3 * residual, 2 * -1 * 0.5 * residual]], dtype=torch.float64)
    signed = signed_sensitivity(model, functional.mse_loss, (x, y), masks=None, batch_size=None)["weight"]
    torch.testing.assert_close(signed, expected, rtol=1e-14, atol=0)
    scores = snip_scores(model, functional.mse_loss, (x, y))["weight"]
    torch.testing.assert_close(scores, expected.abs() / expected.abs().sum(), rtol=1e-14, atol=0)


def test_scores_are_weight_times_gradient_of_autograd():
    model, (x, y) = mlp(16, 32, 10), batch()
    CROSS_ENTROPY(model(x), y).backward()
    products = {name: (p * p.grad).detach().abs() for name, p in model.named_parameters() if p.ndim == 2}
    total = sum(product.sum(dtype=torch.float64) for product in products.values())
    model.zero_grad()
    scores = snip_scores(model, CROSS_ENTROPY, (x, y))
    assert scores.keys() == products.keys()  # no biases
    for name, product in products.items():
        # the sum over the batch is rounded once more: 1e-5 relative to the largest
        torch.testing.assert_close(scores[name], (product / total).float(), rtol=1e-5, atol=1e-9)
    assert abs(sum(float(score.sum()) for score in scores.values()) - 1) < 1e-5


def test_scores_are_what_removing_a_little_of_a_connection_costs():
    model, (x, y) = mlp(16, 8, 10).double(), batch()
    signed = signed_sensitivity(model, CROSS_ENTROPY, (x, y), masks=None, batch_size=None)["1.weight"]
    x = x.double()
    with torch.no_grad():
        full = CROSS_ENTROPY(model(x), y)
        weight = model[1].weight
        for place in signed.abs().flatten().topk(20).indices.tolist():
            i, j = divmod(place, 16)
            before = weight[i, j].clone()
            weight[i, j] = before * (1 - 1e-4)
            difference = (full - CROSS_ENTROPY(model(x), y)) / 1e-4
            weight[i, j] = before
            assert abs(difference - signed[i, j]) < 0.01 * signed[i, j].abs()


def test_signed_scores_of_every_layer_add_up_to_the_same():
    # a ReLU network without biases is positively homogeneous in each layer, so sum w dL/dw = sum f dL/df
    model = mlp(16, 24, 24, 10, bias=False).double()
    signed = signed_sensitivity(model, CROSS_ENTROPY, batch(), masks=None, batch_size=None)
    sums = torch.stack([score.sum() for score in signed.values()])
    torch.testing.assert_close(sums, sums[:1].expand(3), rtol=1e-6, atol=0)


def test_two_half_batches_are_one_whole_batch():
    model, (x, y) = mlp(16, 32, 10), batch()
    whole = snip_scores(model, CROSS_ENTROPY, (x, y))
    loader = [(x[:10], y[:10]), (x[10:], y[10:])]  # unequal ones
    for halves in (
        snip_scores(model, CROSS_ENTROPY, loader),
        snip_scores(model, CROSS_ENTROPY, (x, y), batch_size=20),
    ):
        for name in whole:
            torch.testing.assert_close(halves[name], whole[name], rtol=1e-4, atol=1e-8)
    # the trap: the mean of absolute values is another score
    parts = [signed_sensitivity(model, CROSS_ENTROPY, part, masks=None, batch_size=None) for part in loader]
    absolute = {name: parts[0][name].abs() + parts[1][name].abs() for name in whole}
    assert keep_top(absolute, density=0.1) != keep_top(whole, density=0.1)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("rounds", [1, 4])
def test_exactly_the_share_survives(scope, rounds):
    model = mlp(16, 32, 10)
    masks = snip(model, CROSS_ENTROPY, batch(), density=0.13, scope=scope, rounds=rounds)
    if scope == "global":
        assert sum(masks.counts.values()) == round(0.13 * (16 * 32 + 32 * 10))
    else:
        assert masks.counts == {"1.weight": round(0.13 * 512), "3.weight": round(0.13 * 320)}


def test_weights_that_no_information_passes_are_the_first_to_go():
    # planted: half of the inputs are constantly zero, so their connections have a score of exactly zero
    x, y = batch(100)
    x[:, :, :2] = 0
    masks = snip(mlp(16, 32, 10), CROSS_ENTROPY, (x, y), density=0.3)
    assert not masks["1.weight"][:, :8].any()
    assert masks["1.weight"][:, 8:].any()


def test_more_rounds_score_the_network_that_is_left():
    model = mlp(16, 32, 10)
    once = snip(model, CROSS_ENTROPY, batch(), density=0.1)
    first = snip(model, CROSS_ENTROPY, batch(), density=0.1**0.5)
    twice = snip(model, CROSS_ENTROPY, batch(), density=0.1, rounds=2)
    assert twice & first == twice and twice != once
    scores = snip_scores(first.apply_(mlp(16, 32, 10)), CROSS_ENTROPY, batch())
    assert keep_top(scores, density=0.1) == twice


def test_an_empty_layer_is_reported_and_not_repaired():
    model = mlp(16, 32, 10)
    with torch.no_grad():
        model[1].weight[1:].zero_()  # only the 16 weights of one unit can count, and 10 of the last layer's
        model[1].weight[0] *= 100
    masks = snip(model, CROSS_ENTROPY, batch(), density=1 / 832, scope="global")
    assert len(masks.collapsed) == 1


def test_batch_norm_works_with_the_batch_and_nothing_in_the_network_changes():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(16, 10)
    )
    model.eval()
    model[2].train()
    model[5].weight.grad = torch.ones_like(model[5].weight)
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = batch()
    scores = snip_scores(model, CROSS_ENTROPY, (x, y))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model[5].weight.grad, torch.ones_like(model[5].weight)) and model[0].weight.grad is None
    again = snip_scores(model.train(), CROSS_ENTROPY, (x, y))  # no dropout is drawn, whatever the mode
    assert all(torch.equal(scores[name], again[name]) for name in scores)
    # a network normalized by the batch does not feel its first layer's scale; by running statistics it would
    signed = signed_sensitivity(model, CROSS_ENTROPY, (x, y), masks=None, batch_size=None)["0.weight"]
    assert signed.sum((1, 2, 3)).abs().max() < 1e-3 * signed.abs().sum()


def test_frozen_and_shared_weights_are_scored_too():
    model = mlp(16, 16, 16, 10)
    model[3].weight = model[1].weight
    model.requires_grad_(False)
    assert list(snip_scores(model, CROSS_ENTROPY, batch())) == ["1.weight", "5.weight"]


def test_one_example_and_half_precision_do():
    model = mlp(16, 32, 10).to(torch.bfloat16)
    x, y = batch(1)
    assert sum(snip(model, CROSS_ENTROPY, (x, y), density=0.1).counts.values()) == 83


def test_the_digits_that_matter_are_found_before_training():
    # the corner pixels of the raw digits are almost always zero
    x, y = data.digits().train
    x = x - x.min()
    masks = snip(mlp(64, 100, 10), CROSS_ENTROPY, (x[:200], y[:200]), density=0.05)
    by_pixel = masks["1.weight"].sum(0)
    order = x.flatten(1).var(0).argsort(descending=True)
    assert by_pixel[order[:32]].sum() > 2 * by_pixel[order[32:]].sum()


def test_bad_input_is_named():
    model = mlp(16, 32, 10)
    for density in (0, 1.5):
        with pytest.raises(InputError, match="share of weights to keep"):
            snip(model, CROSS_ENTROPY, batch(), density=density)
    with pytest.raises(InputError, match="rounds"):
        snip(model, CROSS_ENTROPY, batch(), density=0.5, rounds=0)
    with pytest.raises(InputError, match="no weight changes the loss"):
        snip_scores(model, lambda outputs, y: 0 * outputs.sum(), batch())
    with pytest.raises(InputError, match="not finite"):
        snip_scores(model, lambda outputs, y: outputs.sum() * float("inf"), batch())
    with pytest.raises(InputError, match="no batches"):
        snip_scores(model, CROSS_ENTROPY, [])
    with pytest.raises(InputError, match="has shape"):
        snip_scores(model, CROSS_ENTROPY, batch(), masks=Masks({"1.weight": torch.ones(2, 2)}))
    with pytest.raises(InputError, match="NaN"):
        snip_scores(model, CROSS_ENTROPY, (torch.full((2, 16), float("nan")), torch.zeros(2, dtype=torch.long)))
