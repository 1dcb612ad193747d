"""Slimming: what the smaller network computes, and that nothing else changes."""

import pytest
import torch
from torch import nn

from phenoscope import models
from phenoscope.core.errors import InputError
from phenoscope.prune import removable, slim, slim_report
from phenoscope.record.layers import find_layers


def without_norm():
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(24, 10), nn.Tanh(), nn.Linear(10, 4)), torch.randn(5, 3, 8, 8)


def one_dimensional():
    layers = [nn.Conv1d(2, 8, 3), nn.ReLU(), nn.Conv1d(8, 8, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)]
    return nn.Sequential(*layers), torch.randn(5, 2, 10)


def three_dimensional():
    layers = [nn.ConvTranspose3d(2, 8, 3), nn.ReLU(), nn.Conv3d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4)]
    return nn.Sequential(*layers), torch.randn(2, 2, 4, 4, 4)


PLAIN = {"0": [1, 3, 5, 7], "2": [0, 4], "3": [0, 1]}


@pytest.mark.parametrize("make", [without_norm, one_dimensional, three_dimensional])
def test_without_norms_slimming_equals_zeroing(make):
    torch.manual_seed(0)
    model, x = make()
    places = {each.layer.name: each for each in find_layers(model)[0]}
    chosen = {name: indices for name, indices in PLAIN.items() if name in places}
    small = slim(model, chosen, x)
    with torch.no_grad():
        for name, indices in chosen.items():
            layer, weight = places[name].layer, places[name].weight
            size = len(layer) // layer.blocks(weight).shape[0]
            for index in indices:
                layer.blocks(weight)[index // size, index % size] = 0
                dict(model.named_parameters())[layer.bias][index] = 0
    assert all(len(each.layer) == len(places[each.layer.name].layer) - len(chosen.get(each.layer.name, []))
               for each in find_layers(small)[0])  # fmt: skip
    # sums over fewer float32 terms are ordered otherwise: rounding of about 1e-7 a term
    torch.testing.assert_close(small(x), model(x), atol=1e-5, rtol=1e-5)


class Residual(nn.Module):
    """A pre-activation residual network of two units, the first with a shortcut convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(6), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.conv1, self.shortcut = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 8, 1)
        self.conv2, self.conv3 = nn.Conv2d(8, 5, 3, padding=1), nn.Conv2d(5, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.norm1(self.stem(x)).relu()
        x = self.conv1(x) + self.shortcut(x)
        x = x + self.conv3(self.conv2(self.norm2(x).relu()).relu())
        return self.head(self.norm3(x).relu().mean((2, 3)))


@torch.no_grad()
def with_statistics(model):
    """Batch norms as after training: not the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight, module.bias):
                tensor.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def test_filters_whose_outgoing_weights_are_zero_leave_the_outputs_as_they_are():
    torch.manual_seed(0)
    model = with_statistics(Residual())
    chosen = {"stem": [0, 4], "conv2": [2], "conv1": [1, 6], "shortcut": [1, 6], "conv3": [1, 6]}
    with torch.no_grad():
        for reader in (model.conv1, model.shortcut):
            reader.weight[:, chosen["stem"]] = 0
        model.conv3.weight[:, chosen["conv2"]] = 0
        model.conv2.weight[:, chosen["conv1"]] = 0
        model.head.weight[:, chosen["conv1"]] = 0
    x = torch.randn(4, 3, 6, 6)
    small = slim(model, chosen, x)
    assert (small.stem.out_channels, small.shortcut.out_channels, small.norm3.num_features) == (4, 6, 6)
    # sums over fewer float32 terms are ordered otherwise
    torch.testing.assert_close(small.eval()(x), model.eval()(x), atol=1e-5, rtol=1e-5)


def test_a_filter_that_is_redundant_in_one_coupled_layer_only_stays_and_is_listed():
    chosen = {"conv1": [0, 1], "shortcut": [1, 2], "conv3": [1], "conv2": [0]}
    found = removable(Residual(), chosen, torch.randn(2, 3, 6, 6))
    assert found.filters == {"conv1": [1], "shortcut": [1], "conv3": [1], "conv2": [0]}
    kept = {name: indices.tolist() for name, (indices, _) in found.kept.items()}
    assert kept == {"conv1": [0], "shortcut": [2]}
    assert "coupled" in found.kept["conv1"][1]


@pytest.mark.parametrize("training", [False, True])
def test_the_users_network_is_left_as_it_was_and_the_new_one_is_like_it(training):
    torch.manual_seed(0)
    model = with_statistics(Residual()).train(training)
    model.norm2.eval()
    model.stem.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.randn(4, 3, 6, 6)
    small = slim(model, {"stem": [0, 1], "conv2": [2]}, x)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for net in (model, small):
        assert net.training == training and not net.norm2.training
        assert [n for n, p in net.named_parameters() if not p.requires_grad] == ["stem.weight", "stem.bias"]
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert torch.equal(model.head.weight.grad, torch.ones(4, 8))
    assert not {id(p) for p in model.parameters()} & {id(p) for p in small.parameters()}
    kept = [0, 1, 2, 3, 4, 5][2:]
    assert torch.equal(small.norm1.running_mean, model.norm1.running_mean[kept])
    small(x).sum().backward()  # and it trains on


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_stay_what_they_are(dtype):
    torch.manual_seed(0)
    small = slim(Residual().to(dtype), {"stem": [0], "conv2": [1]}, torch.randn(2, 3, 6, 6, dtype=dtype))
    assert {p.dtype for p in small.parameters()} == {dtype}
    assert (small.stem.out_channels, small.conv2.out_channels) == (5, 4)


def test_one_image_several_arguments_and_named_ones_are_examples_too():
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 6), nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, left, right):
            return self.c(self.a(left) + self.b(right))

    left, right = torch.randn(2, 3), torch.randn(2, 4)
    for example in ((left, right), {"right": right, "left": left}):
        assert slim(TwoInputs(), {"a": [1], "b": [1]}, example).c.in_features == 5
    assert slim(Residual(), {"stem": [0]}, torch.randn(1, 3, 6, 6)).stem.out_channels == 5


def test_nothing_chosen_gives_an_equal_network():
    torch.manual_seed(0)
    model, x = without_norm()
    assert torch.equal(slim(model, {"0": []}, x)(x), model(x))


@pytest.mark.parametrize("make", [models.vgg, models.resnet])
def test_reference_networks_lose_what_is_chosen_and_keep_their_outputs(make):
    model = make(width=0.125, generator=0)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = find_layers(model)[0]
    chosen = {each.layer.name: range(0, len(each.layer), 3) for each in found[:-1]}
    small = slim(model, chosen, x)
    for before, after in zip(found[:-1], find_layers(small)[0], strict=False):
        assert len(after.layer) == len(before.layer) - len(chosen[before.layer.name]), before.layer.name
    assert small(x).shape == model(x).shape
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(p.numel() for p in model.parameters())


def test_report_counts_what_can_be_counted_by_hand_and_leaves_modes():
    before = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2))
    after = slim(before, {"0": [1, 2, 3, 4]}, torch.randn(3, 10)).eval()
    seen = []
    report = slim_report(before, after, torch.randn(3, 10), lambda net: seen.append(net.training) or 0.25 * len(seen))
    assert report.state.values.tolist() == ["before", "after"]
    assert report.parameters.values.tolist() == [10 * 8 + 8 + 8 * 2 + 2, 10 * 4 + 4 + 4 * 2 + 2]
    assert report.flops.values.tolist() == [2 * 3 * (80 + 16), 2 * 3 * (40 + 8)]
    assert report.accuracy.values.tolist() == [0.25, 0.5]
    assert (report.forward_ms > 0).all()
    assert seen == [False, False]
    assert before.training and not after.training


def test_bad_filters_are_named():
    model, x = without_norm()
    with pytest.raises(InputError, match="0 twice"):
        slim(model, {"0": [0, 0]}, x)
