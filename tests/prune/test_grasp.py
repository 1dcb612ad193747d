import copy
import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jvp
from torch.nn import functional

from phenoscope import models
from phenoscope.core.errors import InputError
from phenoscope.landscape import ggn_product, loss_gradient
from phenoscope.prune import grasp, grasp_scores, keep_top

CROSS_ENTROPY = functional.cross_entropy


def half_square(outputs, y):
    return outputs.square().mean() / 2


def mlp(*sizes, bias=True, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Flatten()]
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b, bias=bias), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight)
    return nn.Sequential(*layers[:-1]).double()


def batch(n=40, seed=0, classes=10):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 4, 4, generator=rng).double(), torch.randint(classes, (n,), generator=rng)


def quadratic(weights, seed=0):
    """L = w^T A w / 2 with A = X^T X / n, its weights in one linear layer."""
    x = torch.randn(7, len(weights), generator=torch.Generator().manual_seed(seed)).double()
    model = nn.Linear(len(weights), 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor(weights)[None])
    return model, (x, torch.zeros(7)), x.T @ x / 7


def forward_over_reverse(model, data, temperature):
    """-w * H g by torch.func, which differentiates forwards where grasp goes backwards twice."""
    x, y = data
    weights = {name: p.detach() for name, p in model.named_parameters() if p.ndim > 1}
    slope = grad(lambda at: CROSS_ENTROPY(functional_call(model, at, (x,)) / temperature, y))
    g = slope(weights)
    _, curved = jvp(slope, (weights,), (g,))
    return {name: -weights[name] * curved[name] for name in weights}


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_quadratic_loss_has_its_closed_form(temperature):
    model, data, a = quadratic([1.0, -2.0, 0.5, 3.0])
    w = model.weight.detach()[0]
    a = a / temperature**2
    found = grasp_scores(model, half_square, data, temperature=temperature)["weight"][0]
    torch.testing.assert_close(found, -w * (a @ a @ w), rtol=1e-12, atol=1e-14)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch's own, when it first differentiates forwards
def test_scores_are_weight_times_hessian_times_gradient():
    model, data = mlp(16, 32, 10), batch()
    found, expected = grasp_scores(model, CROSS_ENTROPY, data), forward_over_reverse(model, data, 200)
    assert found.keys() == expected.keys()  # no biases
    for name, score in found.items():
        # float64, sums in another order
        torch.testing.assert_close(score, expected[name], rtol=1e-8, atol=1e-10 * float(score.abs().max()))


def test_the_gauss_newton_matrix_would_be_another_score():
    model, data = mlp(16, 32, 10), batch()
    flattened = lambda outputs, y: CROSS_ENTROPY(outputs / 200, y)  # noqa: E731
    names = {name: None for name, p in model.named_parameters() if p.ndim > 1}
    slope = loss_gradient(model, flattened, data, names=names)
    wrong = {
        n: -model.get_parameter(n).detach() * part for n, part in ggn_product(model, flattened, data, slope).items()
    }
    right = grasp_scores(model, CROSS_ENTROPY, data)
    assert max(float((wrong[n] - right[n]).abs().max() / right[n].abs().max()) for n in names) > 0.1


def test_twice_the_scores_predict_what_a_small_removal_does_to_the_gradient():
    model, data = mlp(16, 64, 10), batch(100)
    scores = grasp_scores(model, CROSS_ENTROPY, data)
    weights = {name: p.detach() for name, p in model.named_parameters() if p.ndim > 1}

    def squared_norm(at):
        slope = grad(lambda w: CROSS_ENTROPY(functional_call(model, w, (data[0],)) / 200, data[1]))(at)
        return sum(part.square().sum() for part in slope.values())

    full, eps, rng = squared_norm(weights), 1e-3, torch.Generator().manual_seed(0)
    predicted, measured = [], []
    for _ in range(30):
        chosen = {name: torch.rand(w.shape, generator=rng) < 0.02 for name, w in weights.items()}
        removed = {name: w * (1 - eps * chosen[name]) for name, w in weights.items()}
        predicted.append(2 * eps * sum((scores[name] * chosen[name]).sum() for name in weights))
        measured.append(squared_norm(removed) - full)
    predicted, measured = torch.stack(predicted), torch.stack(measured)
    slope = (predicted * measured).sum() / predicted.square().sum()
    assert abs(slope - 1) < 0.01  # the second order is eps times as large


def test_the_smallest_scores_stay_and_neither_the_largest_nor_the_largest_in_size():
    model, data, _ = quadratic([1.0, -2.0, 0.5, 3.0], seed=11)
    scores = grasp_scores(model, half_square, data, temperature=1)["weight"][0]
    kept = grasp(model, half_square, data, density=0.25, temperature=1)["weight"][0]
    assert kept.tolist() == (scores == scores.min()).tolist() and scores.min() < 0
    # L = (sum of w)^2 / 2, so S = -3 w sum(w): the largest weight stands against the sum of the others
    model, _, _ = quadratic([-2.5, -2.0, 3.0])
    data = torch.ones(1, 3).double(), torch.zeros(1)
    scores = grasp_scores(model, half_square, data, temperature=1)["weight"][0]
    torch.testing.assert_close(scores, 4.5 * torch.tensor([-2.5, -2.0, 3.0]).double(), rtol=1e-12, atol=0)
    kept = grasp(model, half_square, data, density=1 / 3, temperature=1)["weight"][0]
    assert kept.tolist() == [True, False, False] and scores.abs().argmax() == 2


def test_what_is_kept_carries_more_gradient_than_what_its_opposite_keeps():
    model, data, held = mlp(16, 64, 64, 10), batch(100), batch(200, seed=1)
    right = grasp(model, CROSS_ENTROPY, data, density=0.05)
    wrong = keep_top(grasp_scores(model, CROSS_ENTROPY, data), density=0.05)

    def norm(masks):
        slope = loss_gradient(masks.apply_(copy.deepcopy(model)), CROSS_ENTROPY, held, names=masks)
        return float(sum((part * masks[name]).square().sum() for name, part in slope.items()).sqrt())

    assert norm(right) > 10 * norm(wrong)


def test_batches_of_a_loader_count_together():
    model, (x, y) = mlp(16, 32, 10), batch()
    whole = grasp_scores(model, CROSS_ENTROPY, (x, y))
    loader = ((x[a:b], y[a:b]) for a, b in ((0, 10), (10, 40)))  # can be gone through once only
    for parts in (grasp_scores(model, CROSS_ENTROPY, loader), grasp_scores(model, CROSS_ENTROPY, (x, y), batch_size=7)):
        for name, score in parts.items():
            torch.testing.assert_close(score, whole[name], rtol=1e-8, atol=1e-10 * float(score.abs().max()))


def test_batch_norm_works_with_the_batch_and_nothing_in_the_network_changes():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(16, 10)
    )
    model.eval()
    model[0].weight.requires_grad_(False)
    model[5].weight.grad = torch.ones_like(model[5].weight)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = batch()
    scores = grasp_scores(model, CROSS_ENTROPY, (x, y))
    assert set(scores) == {"0.weight", "5.weight"}  # a frozen weight is scored
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules()) and not model[0].weight.requires_grad
    assert torch.equal(model[5].weight.grad, torch.ones_like(model[5].weight)) and model[0].weight.grad is None
    again = grasp_scores(model.train(), CROSS_ENTROPY, (x, y))  # no dropout is drawn, whatever the mode
    assert all(torch.equal(scores[name], again[name]) for name in scores)
    # behind a batch norm the scale of a filter does not matter to the loss: the gradient is at right angles to it and
    # shrinks as 1 / scale, so that the scores of a filter sum to its share of the squared gradient norm (Euler)
    flattened = lambda outputs, y: CROSS_ENTROPY(outputs / 200, y)  # noqa: E731
    model.requires_grad_(True).train()
    model[4].eval()
    slope = loss_gradient(model, flattened, (x, y), names={"0.weight": None})["0.weight"]
    torch.testing.assert_close(
        _first_layer_alone(model, flattened, (x, y)).sum(), slope.square().sum(), rtol=1e-3, atol=0
    )


def _first_layer_alone(model, loss_fn, data):
    from phenoscope.landscape import hvp

    slope = loss_gradient(model, loss_fn, data, names={"0.weight": None})
    return -model[0].weight.detach() * hvp(model, loss_fn, data, slope)["0.weight"]


@pytest.mark.parametrize("make", [models.cnn, models.vit, models.resnet])
def test_any_network_does_with_one_example(make):
    knobs = dict(width=0.0625, depth=18) if make is models.resnet else {}
    model = make((1, 8, 8), 10, generator=0, **knobs)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    total = sum(mask.numel() for mask in grasp(model, CROSS_ENTROPY, (x, torch.tensor([3, 1])), density=1).values())
    masks = grasp(model, CROSS_ENTROPY, (x, torch.tensor([3, 1])), density=0.1)
    assert sum(masks.counts.values()) == round(0.1 * total)


def test_bad_input_is_named():
    model = mlp(16, 32, 10)
    for density in (0, 1.5):
        with pytest.raises(InputError, match="share of weights to keep"):
            grasp(model, CROSS_ENTROPY, batch(), density=density)
    with pytest.raises(InputError, match="temperature"):
        grasp(model, CROSS_ENTROPY, batch(), density=0.5, temperature=0)
    with pytest.raises(InputError, match="no weight changes the gradient"):
        grasp_scores(mlp(16, 10), lambda outputs, y: outputs.sum(), batch())
    with pytest.raises(InputError, match="not finite"):
        grasp_scores(model, lambda outputs, y: outputs.square().sum() * float("inf"), batch())
    with pytest.raises(InputError, match="no batches"):
        grasp_scores(model, CROSS_ENTROPY, [])
    with pytest.raises(InputError, match="no weight of two"):
        grasp_scores(nn.BatchNorm1d(3), CROSS_ENTROPY, batch())
