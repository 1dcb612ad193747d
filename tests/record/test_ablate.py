"""Ablation: what is zeroed, that it comes back bit by bit, and the numbers against zeroing by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import models
from phenoscope.core.errors import InputError
from phenoscope.record.ablate import ablate
from phenoscope.record.layers import find_layers
from phenoscope.record.redundant import Filters


@pytest.fixture
def trained():
    """A small convolutional network fitted to four random classes, in which filters 1 and 3 of layer 0 go nowhere."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 4))
    with torch.no_grad():
        model[2].weight[:, [1, 3]] = 0
    model[2].weight.register_hook(lambda gradient: gradient.index_fill(1, torch.tensor([1, 3]), 0))
    x, y = torch.randn(60, 2, 6, 6), torch.arange(60) % 4
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, lambda net: (net(x).argmax(1) == y).double().mean().item()


def test_filters_that_go_nowhere_cost_nothing_and_connected_ones_do(trained):
    model, evaluate = trained
    table = ablate(model, {"0": [1, 3], "2": [0, 1, 2]}, evaluate, repeats=5, generator=0)
    assert table.layer.values.tolist() == ["0", "2", "all layers"]
    assert table["count"].values.tolist() == [2, 3, 5]
    assert table["filters"].values.tolist() == [6, 5, 11]
    assert table.accuracy.item() > 0.9
    assert table["drop"].sel(layer="0") == 0
    assert table["drop"].sel(layer="2") > 0.1
    assert (table.random_low <= table.random_mean).all() and (table.random_mean <= table.random_high).all()
    np.testing.assert_allclose(table.random_mean, table.random_drop.mean("draw"), atol=1e-12)


def test_drops_are_those_of_zeroing_by_hand(trained):
    model, evaluate = trained
    table = ablate(model, {"0": [0, 2], "5": [3]}, evaluate, repeats=2, generator=0)
    before = evaluate(model)
    smallest = model[0].weight.detach().abs().sum((1, 2, 3)).argsort()[:2]
    for indices, measured in (([0, 2], table["drop"]), (smallest, table.norm_drop)):
        kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with torch.no_grad():
            model[0].weight[indices] = 0
            model[0].bias[indices] = 0
        assert measured.sel(layer="0").item() == before - evaluate(model)
        if measured is table["drop"]:
            with torch.no_grad():
                model[5].weight[3] = 0
                model[5].bias[3] = 0
            assert measured.sel(layer="all layers").item() == before - evaluate(model)
        model.load_state_dict(kept)


def all_kinds():
    heads = nn.MultiheadAttention(8, 2)
    layers = {"conv": nn.Conv1d(4, 6, 3, groups=2), "up": nn.ConvTranspose2d(4, 6, 3, groups=2), "heads": heads}
    layers |= {"linear": nn.Linear(4, 3), "bare": nn.Linear(4, 3, bias=False), "embed": nn.Embedding(5, 4)}
    return nn.ModuleDict(layers)


def test_exactly_the_chosen_filters_of_every_kind_of_layer_are_zero_while_it_evaluates():
    model = all_kinds()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 1, 2)
    chosen = {"conv": [0, 4], "up": [2, 3], "heads.k": [1], "linear": [2], "bare": [0], "embed": [3]}
    zero = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in model.named_parameters()}
    zero["conv.weight"][[0, 4]] = zero["conv.bias"][[0, 4]] = True
    zero["up.weight"][:2, 2] = True  # filter 2 is the last of group 0, filter 3 the first of group 1
    zero["up.weight"][2:, 0] = True
    zero["up.bias"][[2, 3]] = True
    zero["heads.in_proj_weight"][12:16] = zero["heads.in_proj_bias"][12:16] = True  # rows of k: 8 to 16, head 1
    zero["linear.weight"][2] = zero["linear.bias"][2] = zero["bare.weight"][0] = zero["embed.weight"][3] = True
    seen = []
    ablate(
        model,
        chosen,
        lambda net: seen.append({n: p == 0 for n, p in net.named_parameters()}) or 1.0,
        repeats=1,
        generator=0,
    )
    everything = seen[1 + 3 * len(chosen)]  # after one evaluation before, and three a layer
    assert all(torch.equal(everything[name], zero[name]) for name in zero)
    assert not any(mask.any() for mask in seen[0].values())


def test_the_network_is_left_bit_by_bit_as_it_was_also_when_evaluation_fails():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(16, 2))
    model[1].eval()
    with torch.no_grad():
        model[0].weight[1, 0, 0, 0] = float("nan")
        model[0].bias[0] = -0.0
    x = torch.randn(3, 2, 4, 4)
    model(x).sum().backward()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [parameter.grad for parameter in model.parameters()]
    calls = []

    def evaluate(net):
        assert not net.training and not torch.is_grad_enabled()
        calls.append(net)
        net.zero_grad()
        net.train()  # bad manners: batch statistics move
        net(x)
        if len(calls) == fail_at:
            raise KeyboardInterrupt
        return 0.5

    for fail_at in (0, 1, 2, 4, 7):
        calls.clear()
        if fail_at:
            with pytest.raises(KeyboardInterrupt):
                ablate(model, {"0": [0, 1], "4": [1]}, evaluate, repeats=2)
        else:
            ablate(model, {"0": [0, 1], "4": [1]}, evaluate, repeats=2)
        for name, tensor in model.state_dict().items():
            assert tensor.numpy().tobytes() == state[name].numpy().tobytes(), name
        assert [parameter.grad for parameter in model.parameters()] == gradients
        assert [module.training for module in model] == [True, False, True, True, True]
        assert model.training


def test_a_backward_pass_that_was_waiting_still_goes_through():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    loss = model(torch.randn(5, 3)).sum()
    ablate(model, {"0": [0], "2": [1]}, lambda net: 1.0, repeats=2)
    loss.backward()


def test_random_draws_follow_the_seed_and_have_the_right_size():
    model = nn.Sequential(nn.Linear(3, 10, bias=False))
    drawn = []

    def evaluate(net):
        drawn.append(tuple((net[0].weight == 0).all(1).nonzero().flatten().tolist()))
        return len(drawn) / 100

    first = ablate(model, {"0": [1, 2, 3]}, evaluate, repeats=6, generator=3)
    once, drawn = drawn, []
    again = ablate(model, {"0": [1, 2, 3]}, evaluate, repeats=6, generator=3)
    assert once == drawn and first.equals(again)
    assert all(len(indices) == 3 for indices in once[1:])
    assert len(set(once[3:9])) > 1


def test_layers_without_chosen_filters_are_not_evaluated():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    calls = []
    table = ablate(model, {"0": [], "1": []}, lambda net: calls.append(net) or 0.75, repeats=3)
    assert len(calls) == 1 and table.accuracy.item() == 0.75
    assert table["count"].values.tolist() == [0, 0, 0]
    for name in ("drop", "random_drop", "random_mean", "random_low", "random_high", "norm_drop"):
        assert (table[name] == 0).all()


def test_equal_draws_give_an_interval_without_width():
    table = ablate(nn.Sequential(nn.Linear(3, 4)), {"0": [0]}, lambda net: 0.5, repeats=20)
    assert table.random_low[0] == table.random_high[0] == 0


def test_heads_that_were_recorded_by_a_pattern_are_the_heads_that_are_zeroed():
    model = nn.ModuleDict({"mix": nn.Linear(4, 8)})
    layers = {each.layer.name: each.layer for each in find_layers(model, heads={"mix": 2})[0]}
    seen = []
    filters = Filters({"mix": [1]}, layers)
    ablate(model, filters, lambda net: seen.append((net["mix"].weight == 0).all(1).tolist()) or 1.0, repeats=1)
    assert seen[1] == [False] * 4 + [True] * 4


def test_progress_counts_every_evaluation():
    told = []
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    ablate(model, {"0": [1], "1": []}, lambda net: 1.0, repeats=2, progress=lambda *at: told.append(at))
    assert told == [(done, 9) for done in range(1, 10)]


def test_reference_networks_can_be_ablated():
    for model in (models.vgg(width=0.125, generator=0), models.resnet(width=0.125, generator=0)):
        x = torch.randn(2, 3, 32, 32)
        name = next(name for name, _ in model.named_modules() if name.endswith("conv2"))
        table = ablate(model, {name: [0, 1]}, lambda net, x=x: net(x).mean().item(), repeats=1)
        assert table["drop"].sel(layer=name) != 0


@pytest.mark.parametrize(
    ("filters", "options", "message"),
    [
        ({"9": [0]}, {}, "no layer '9'"),
        ({"0": [4]}, {}, "no filter 4"),
        ({"0": [1, 1]}, {}, "1 twice"),
        ({}, {}, "names no layer"),
        ({"0": [0]}, {"repeats": 0}, "repeats"),
    ],
)
def test_bad_input_is_named(filters, options, message):
    with pytest.raises(InputError, match=message):
        ablate(nn.Sequential(nn.Linear(3, 4)), filters, lambda net: 1.0, **options)


def test_an_accuracy_that_is_not_finite_says_when_it_came():
    model = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(InputError, match="nan with filters of 0 zeroed"):
        ablate(model, {"0": [0]}, lambda net: float("nan") if (net[0].bias == 0).any() else 1.0)


def test_a_weight_behind_weight_norm_is_refused_because_zeroing_would_make_it_nan():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)))
    with pytest.raises(InputError, match="'0' is computed by a parametrization"):
        ablate(model, {"0": [0]}, lambda net: 1.0)
