import copy
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import models
from phenoscope.core.errors import InputError
from phenoscope.prune import (
    Masks,
    keep_top,
    layer_collapse,
    one_shot,
    saliency_conservation,
    snip,
    synflow,
    synflow_scores,
)


def mlp(*sizes, bias=False, act=nn.ReLU, seed=0):
    torch.manual_seed(seed)
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b, bias=bias), act()]
        nn.init.kaiming_normal_(layers[-2].weight)
    return nn.Sequential(*layers[:-1])


def absolute_flow(model, shape):
    """R, written out for a chain of linear and convolutional layers, ReLU and pooling."""
    positive = copy.deepcopy(model).double().eval()
    for value in (*positive.parameters(), *positive.buffers()):
        if value.is_floating_point():
            value.data.abs_()
    return positive(torch.ones(1, *shape).double()).sum().item()


def vgg(norm="batch"):
    return models.vgg((3, 16, 16), 10, depth=11, blocks=4, width=0.125, norm=norm, generator=0)


def test_two_layers_have_their_closed_form():
    model = mlp(5, 4, 3)
    first, last = (model[at].weight.detach().double().abs() for at in (0, 2))
    found = synflow_scores(model, shape=(5,))
    torch.testing.assert_close(found["0.weight"], first * last.sum(0)[:, None], rtol=1e-14, atol=0)
    torch.testing.assert_close(found["2.weight"], last * first.sum(1)[None, :], rtol=1e-14, atol=0)


@pytest.mark.parametrize("make", [lambda: mlp(7, 20, 5, 9, 4), lambda: without_bias(vgg(None))])
def test_every_layer_and_every_unit_conserves_the_flow(make):
    model = make()
    shape = (7,) if isinstance(model[0], nn.Linear) else (3, 16, 16)
    found = saliency_conservation(model, synflow_scores(model, shape=shape))
    total = absolute_flow(model, shape)
    assert found.sizes["layer"] >= 4
    assert (abs(found.total / total - 1) < 1e-9).all()  # float64: rounding of sums only
    assert (found.unit_error[:-1] < 1e-9).all() and math.isnan(found.unit_error[-1])


def without_bias(model):
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_parameter("bias", None)
    return model


def test_any_loss_is_conserved_and_biases_count_among_what_goes_in():
    model = mlp(6, 12, 8, 3, bias=True).double()
    nn.init.normal_(model[0].bias)
    x, y = torch.randn(20, 6).double(), torch.randint(3, (20,))
    functional.cross_entropy(model(x), y).backward()
    scores = {name: (p * p.grad).detach() for name, p in model.named_parameters()}
    found = saliency_conservation(model, scores)
    assert (found.unit_error[:-1] < 1e-9).all()
    assert float(found.bias[0]) == pytest.approx(float(scores["0.bias"].sum()), rel=1e-12)
    # the negative controls: without biases, with absolute values, with another activation
    weights = {name: score for name, score in scores.items() if name.endswith("weight")}
    assert (saliency_conservation(model, weights).unit_error[:-1] > 1e-3).any()
    sizes = {name: score.abs() for name, score in scores.items()}
    assert (saliency_conservation(model, sizes).unit_error[:-1] > 1e-3).all()
    bent = mlp(6, 12, 8, 3, act=nn.Tanh).double()
    functional.cross_entropy(bent(x), y).backward()
    scores = {name: (p * p.grad).detach() for name, p in bent.named_parameters()}
    assert (saliency_conservation(bent, scores).unit_error[:-1] > 1e-3).all()


def test_the_network_stays_bit_for_bit_whatever_its_signs():
    model = vgg()
    with torch.no_grad():
        weight = model.block1.conv1.weight
        weight.view(-1)[:3] = torch.tensor([-0.0, 0.0, -1e-30])
    weight.grad = torch.ones_like(weight)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    synflow(model, shape=(3, 16, 16), density=0.1, iterations=3)
    for name, value in model.state_dict().items():  # bytes, because 0.0 == -0.0
        assert value.numpy().tobytes() == before[name].numpy().tobytes()
    assert model.training and weight.requires_grad and (weight.grad == 1).all()


def test_no_layer_is_emptied_where_single_shots_empty_one():
    model = mlp(64, 256, 256, 16, 10)
    x, y = torch.randn(100, 64), torch.randint(10, (100,))
    count = sum(p.numel() for p in model.parameters())
    kept = 6  # of four layers
    masks = synflow(model, shape=(64,), density=kept / count)
    assert not masks.collapsed and sum(masks.counts.values()) == kept
    # a path leads through what is left
    pruned = masks.apply_(copy.deepcopy(model))
    assert absolute_flow(pruned, (64,)) > 0
    for other in (
        synflow(model, shape=(64,), density=kept / count, iterations=1),
        one_shot(model, density=kept / count),
        snip(model, functional.cross_entropy, (x, y), density=kept / count),
    ):
        assert other.collapsed


def test_densities_fall_as_the_schedule_says_and_what_is_gone_stays_gone():
    model = mlp(20, 30, 10)
    twice = synflow(model, shape=(20,), density=0.04, iterations=2)
    first = keep_top(synflow_scores(model, shape=(20,)), density=0.2)  # 0.04 to the power 1/2
    left = synflow_scores(model, shape=(20,), masks=first)
    assert all(not left[name][~first[name]].any() for name in first)
    assert twice == keep_top(left, density=0.04, within=first)
    once = synflow(model, shape=(20,), density=0.04, iterations=1)
    assert once == keep_top(synflow_scores(model, shape=(20,)), density=0.04) != twice
    halfway = keep_top(synflow_scores(model, shape=(20,)), density=0.52)  # 1 - 0.96 / 2
    linear = synflow(model, shape=(20,), density=0.04, iterations=2, schedule="linear")
    assert linear & halfway == linear
    assert synflow(model, shape=(20,), density=1.0) == Masks.ones(model)


def test_only_the_shape_of_the_data_counts():
    model = models.mlp((1, 4, 4), 3, width=(8,), generator=0)
    by_shape = synflow(model, shape=(1, 4, 4), density=0.2, iterations=5)
    x, y = torch.randn(9, 1, 4, 4), torch.randint(3, (9,))
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    for data in ((x, y), (x * 100, y), loader):
        assert synflow(model, functional.cross_entropy, data, density=0.2, iterations=5, generator=1) == by_shape


def test_wide_deep_networks_do_not_overflow():
    wide = mlp(512, *[512] * 20)
    for module in wide:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)  # 409 times as much after every layer: over float32 after 15
    single = copy.deepcopy(wide)
    for p in single.parameters():
        p.data.abs_()
    assert not single(torch.ones(1, 512)).isfinite().all()
    found = synflow_scores(wide, shape=(512,))
    assert all(score.isfinite().all() for score in found.values())
    assert not synflow(wide, shape=(512,), density=1e-5, iterations=3).collapsed


def test_where_float64_overflows_all_scores_are_scaled_alike():
    # biases and a way around a layer: scaling the layers' weights would change the order
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(12))

        def forward(self, x):
            for layer in self.layers:
                x = x + layer(x).relu()
            return x

    huge = Skips().double()
    with torch.no_grad():
        for at in (0, 11):
            huge.layers[at].weight.mul_(1e160)
            huge.layers[at].bias.mul_(1e160)
    found = synflow_scores(huge, shape=(6,))
    assert all(score.isfinite().all() for score in found.values())
    # the same network in units in which it does not overflow
    small = copy.deepcopy(huge)
    with torch.no_grad():
        for at in (0, 11):
            small.layers[at].weight.mul_(1e-60)
            small.layers[at].bias.mul_(1e-60)
    exact = synflow_scores(small, shape=(6,))
    middle = "layers.5.weight"  # the way around the two large layers is negligible in both
    ratio = found[middle] / exact[middle]
    torch.testing.assert_close(ratio, ratio[:1, :1].expand(6, 6), rtol=1e-9, atol=0)
    with torch.no_grad():
        for layer in huge.layers:
            layer.weight.mul_(1e160)
    with pytest.raises(InputError, match="overflows even"):
        synflow_scores(huge, shape=(6,))


def test_batch_norm_works_with_its_running_statistics():
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
        model[1].running_var.copy_(torch.tensor([4.0, 1.0, 0.25]))
    model.train()  # one input has no variance of its own
    scale = (model[1].weight.abs() * (model[1].running_var + model[1].eps).rsqrt()).double().detach()
    first, last = (model[at].weight.detach().double().abs() for at in (0, 3))
    expected = first * (last.sum(0) * scale)[:, None]
    # batch norm's constants were rounded to float32 on the way here: 1e-6
    torch.testing.assert_close(synflow_scores(model, shape=(4,))["0.weight"], expected, rtol=1e-6, atol=0)
    assert synflow(model, shape=(4,), density=0.5).linearized == ()
    bare = copy.deepcopy(model)
    bare[1] = nn.BatchNorm1d(3, affine=False, track_running_stats=False)
    plain = nn.Sequential(bare[0], bare[3])
    for a, b in zip(synflow_scores(bare, shape=(4,)).values(), synflow_scores(plain, shape=(4,)).values(), strict=True):
        torch.testing.assert_close(a, b / math.sqrt(1 + 1e-5), rtol=1e-12, atol=0)


@pytest.mark.parametrize("act", [nn.Tanh, nn.GELU, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.Hardtanh])
def test_bent_activations_count_as_the_identity_and_the_result_says_so(act):
    model, straight = mlp(5, 6, 4, act=act), mlp(5, 6, 4, act=nn.Identity)
    straight.load_state_dict(model.state_dict())
    masks = synflow(model, shape=(5,), density=0.3, iterations=4)
    assert masks == synflow(straight, shape=(5,), density=0.3, iterations=4)
    assert masks.linearized == (act.__name__.lower(),)
    for kept in (nn.ReLU, nn.LeakyReLU, nn.ELU):
        found = mlp(5, 6, 4, act=kept)
        found.load_state_dict(model.state_dict())
        assert synflow(found, shape=(5,), density=0.3, iterations=4).linearized == ()


def test_functions_inside_of_a_forward_pass_are_seen_too():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
            self.norm = nn.LayerNorm(6)

        def forward(self, x):
            return self.b(functional.gelu(self.norm(self.a(x).tanh())))

    assert synflow(Inside(), shape=(4,), density=0.5, iterations=2).linearized == ("tanh", "layer_norm", "gelu")


@pytest.mark.parametrize("name", ["cnn", "resnet", "vit", "vgg", "deep_linear"])
def test_any_feed_forward_network_does(name):
    knobs = {"resnet": dict(width=0.125, depth=18), "vgg": dict(width=0.125, blocks=3, norm="layer")}.get(name, {})
    model = getattr(models, name)((1, 8, 8), 10, generator=0, **knobs)
    masks = synflow(model, shape=(1, 8, 8), density=0.05, iterations=5)
    count = sum(mask.numel() for mask in masks.values())
    assert sum(masks.counts.values()) == round(0.05 * count)
    if name != "vit":
        assert not masks.collapsed


def test_collapse_is_counted():
    found = layer_collapse({"a": torch.tensor([[1, 0], [1, 1]]), "b": torch.zeros(1, 2)})
    assert found.kept.values.tolist() == [3, 0] and found.weights.values.tolist() == [4, 2]
    assert found.collapsed.values.tolist() == [False, True]
    assert float(found.compression) == 2 and float(found.max_compression) == 3
    assert math.isinf(layer_collapse({"a": torch.zeros(2, 2)}).compression)


def test_bad_input_is_named():
    model = mlp(5, 6, 4)
    for density in (0, 1.5):
        with pytest.raises(InputError, match="share of weights to keep"):
            synflow(model, shape=(5,), density=density)
    with pytest.raises(InputError, match="iterations"):
        synflow(model, shape=(5,), density=0.5, iterations=0)
    with pytest.raises(InputError, match="schedule"):
        synflow(model, shape=(5,), density=0.5, schedule="cosine")
    with pytest.raises(InputError, match="one of the two"):
        synflow(model, density=0.5)
    with pytest.raises(InputError, match="no batches"):
        synflow(model, None, [], density=0.5)
    with pytest.raises(InputError, match="inputs of shape"):
        synflow(model, shape=(7,), density=0.5)
    with pytest.raises(InputError, match="softmax"):
        synflow(nn.Sequential(model, nn.Softmax(1)), shape=(5,), density=0.5)
    with pytest.raises(InputError, match="recurrent"):
        synflow(models.gru((1, 8), 4), shape=(1, 8), density=0.5)
    with pytest.raises(InputError, match="no masks"):
        layer_collapse({})
    with pytest.raises(InputError, match="no parameter"):
        saliency_conservation(model, {"0.weight": torch.ones(2, 2)})
    with pytest.raises(InputError, match="none of the weights"):
        saliency_conservation(model, {})
