"""VGG-16 as published: counts, names, sizes, first values."""

import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.models import VGG16_OBSERVED, vgg

BLOCKS = [[64, 64], [128, 128], [256] * 3, [512] * 3, [512] * 3]
COUNTS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def closed_form(shape, classes, width=1.0, batch_norm=False, depth=16):
    """Parameters of a VGG, from table 1 of Simonyan and Zisserman."""
    channels, height, units = shape[0], shape[1], round(4096 * width)
    total = 0
    wanted = [[block[0]] * count for block, count in zip(BLOCKS, COUNTS[depth], strict=True)]
    for out in (round(width * c) for block in wanted for c in block):
        total += 9 * channels * out + out + (2 * out if batch_norm else 0)
        channels = out
    for out in [units, units, classes] if height >= 64 else [classes]:
        inputs = channels * (height // 32) ** 2 if channels == round(512 * width) else channels
        total += inputs * out + out
        channels = out
    return total


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_closed_form_gives_the_published_count():
    assert closed_form((3, 224, 224), 1000) == 138_357_544


@pytest.mark.parametrize(
    ("shape", "classes", "width", "batch_norm"),
    [
        ((3, 32, 32), 10, 1.0, False),
        ((1, 40, 40), 7, 0.25, True),
        ((3, 63, 63), 10, 0.125, False),
        ((3, 64, 64), 10, 0.125, False),
        ((3, 224, 224), 1000, 0.125, True),
    ],
)
def test_parameter_count_and_output_shape(shape, classes, width, batch_norm):
    network = vgg(shape, classes, width=width, norm="batch" if batch_norm else None, generator=0)
    assert parameters(network) == closed_form(shape, classes, width, batch_norm)
    assert network.eval()(torch.zeros(1, *shape)).shape == (1, classes)


@pytest.mark.parametrize(("depth", "published"), [(11, 132_863_336), (13, 133_047_848), (19, 143_667_240)])
def test_other_depths_have_their_published_counts(depth, published):
    assert closed_form((3, 224, 224), 1000, depth=depth) == published
    network = vgg((3, 64, 64), 7, width=0.125, depth=depth, generator=0)
    assert parameters(network) == closed_form((3, 64, 64), 7, 0.125, depth=depth)


def test_fewer_blocks_take_smaller_images():
    network = vgg((3, 16, 16), 5, width=0.125, blocks=3, activation="tanh", norm="layer", generator=0)
    assert network(torch.zeros(1, 3, 16, 16)).shape == (1, 5)
    assert [name for name, _ in network.named_children()] == ["block1", "block2", "block3", "flatten", "fc8"]
    assert isinstance(network.block1.relu1, nn.Tanh) and isinstance(network.block1.norm1, nn.GroupNorm)


def test_every_convolution_bears_its_published_name_and_width():
    network = vgg(generator=0)
    found = {name: m.out_channels for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    expected = {f"block{b}.conv{c}": out for b, outs in enumerate(BLOCKS, 1) for c, out in enumerate(outs, 1)}
    assert found == expected
    assert [found[name] for name in VGG16_OBSERVED] == [64, 128, 256, 512, 512]


def test_the_paper_has_no_batch_norm_and_dropout_only_in_the_large_head():
    def kinds(network):
        return {type(m) for m in network.modules()}

    small, large = vgg(width=0.125, generator=0), vgg((3, 64, 64), width=0.125, generator=0)
    assert nn.BatchNorm2d not in kinds(small) | kinds(large)
    assert nn.Dropout not in kinds(small)
    assert nn.Dropout in kinds(large)
    assert nn.BatchNorm2d in kinds(vgg(width=0.125, norm="batch", generator=0))


def test_every_block_halves_the_image():
    network = vgg((3, 96, 64), width=0.125, generator=0)
    x, sizes = torch.zeros(1, 3, 96, 64), []
    for block in range(1, 6):
        x = network.get_submodule(f"block{block}")(x)
        sizes.append(tuple(x.shape[2:]))
    assert sizes == [(48, 32), (24, 16), (12, 8), (6, 4), (3, 2)]


def test_a_seed_gives_the_same_bits_and_leaves_torchs_generator_alone():
    state = torch.get_rng_state()
    one, same, other = (vgg(width=0.125, norm="batch", generator=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["block1.conv1.weight"], other["block1.conv1.weight"])


def test_without_a_generator_torchs_seed_governs():
    torch.manual_seed(5)
    one = vgg(width=0.125).state_dict()
    torch.manual_seed(5)
    same = vgg(width=0.125).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_weights_have_he_variance_and_biases_are_zero():
    network = vgg(width=0.5, generator=0)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in = module.weight[0].numel()
            ratio = (module.weight.var() * fan_in / 2).item()
            # the sample variance of n normal values has relative standard deviation sqrt(2 / n): 5 of them
            assert abs(ratio - 1) < 5 * (2 / module.weight.numel()) ** 0.5
            assert not module.bias.any()


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ({"shape": (3, 31, 32)}, "31x32"),
        ({"shape": (32, 32)}, "shape"),
        ({"shape": (0, 32, 32)}, "shape"),
        ({"num_classes": 0}, "num_classes"),
        ({"width": 0.0}, "width"),
        ({"width": float("nan")}, "width"),
        ({"depth": 12}, "depth"),
        ({"blocks": 6}, "blocks"),
    ],
)
def test_bad_arguments_are_named(arguments, culprit):
    with pytest.raises(InputError, match=culprit):
        vgg(**arguments)
