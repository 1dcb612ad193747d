"""ResNet-50 v2 as published: counts, names, strides, identity units."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope.core.errors import InputError
from phenoscope.models import RESNET50_OBSERVED, resnet

BLOCKS = [(3, 64, 256), (4, 128, 512), (6, 256, 1024), (3, 512, 2048)]


def closed_form(classes, width=1.0, in_channels=3):
    """Trainable parameters of ResNet-50 v2, from table II of the paper and the layout of TF-slim."""
    channels = round(64 * width)
    total = 49 * in_channels * channels + channels
    for units, narrow, out in BLOCKS:
        narrow, out = round(narrow * width), round(out * width)
        for _ in range(units):
            norms = 2 * channels + 2 * narrow + 2 * narrow
            convolutions = channels * narrow + 9 * narrow * narrow + narrow * out + out
            total += norms + convolutions + (channels * out + out if channels != out else 0)
            channels = out
    return total + 2 * channels + channels * classes + classes


def test_closed_form_gives_the_count_known_for_1000_classes():
    # trainable parameters of the ResNet50V2 that comes with Keras, which has the same layout
    assert closed_form(1000) == 25_568_360


@pytest.mark.parametrize(
    ("shape", "classes", "width"),
    [
        ((3, 32, 32), 10, 1.0),
        ((1, 8, 8), 3, 0.125),
        ((3, 33, 47), 10, 0.25),
        ((3, 64, 64), 10, 0.125),
        ((3, 224, 224), 100, 0.125),
    ],
)
def test_parameter_count_and_output_shape(shape, classes, width):
    network = resnet(shape, classes, width=width, generator=0)
    assert sum(p.numel() for p in network.parameters()) == closed_form(classes, width, shape[0])
    output = network.eval()(torch.randn(1, *shape))
    assert output.shape == (1, classes)
    assert output.isfinite().all()


def test_observed_layers_exist_with_their_published_width():
    network = resnet(generator=0)
    assert [network.get_submodule(name).out_channels for name in RESNET50_OBSERVED] == [64, 64, 128, 256, 512]


def test_units_bear_the_names_of_tf_slim():
    network = resnet(width=0.125, generator=0)
    names = {name for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    expected = {"conv1"}
    for block, (units, _, _) in enumerate(BLOCKS, 1):
        expected |= {f"block{block}.unit{u}.conv{c}" for u in range(1, units + 1) for c in (1, 2, 3)}
        expected.add(f"block{block}.unit1.shortcut")
    assert names == expected


def test_biases_stand_where_no_norm_follows():
    for name, module in resnet(width=0.125, generator=0).named_modules():
        if isinstance(module, nn.Conv2d):
            inside = ".unit" in name and name.endswith(("conv1", "conv2"))
            assert (module.bias is None) == inside, name


@pytest.mark.parametrize(("size", "stem"), [(32, 16), (63, 32), (64, 16), (224, 56)])
def test_feature_maps_shrink_in_the_3x3_of_the_last_unit_of_blocks_1_to_3(size, stem):
    network = resnet((3, size, size), width=0.125, generator=0).eval()
    sizes = {}
    for name, module in network.named_modules():
        if name.endswith(("conv1", "conv2", "conv3", "shortcut")):
            module.register_forward_hook(
                lambda m, x, y, name=name: sizes.__setitem__(name, (x[0].shape[2], y.shape[2]))
            )
    network(torch.zeros(1, 3, size, size))
    assert sizes.pop("conv1") == (size, -(-size // 2))
    now = stem
    for block, (units, _, _) in enumerate(BLOCKS, 1):
        for unit in range(1, units + 1):
            after = now // 2 if unit == units and block < 4 else now
            place = f"block{block}.unit{unit}"
            assert sizes[f"{place}.conv1"] == (now, now)
            assert sizes[f"{place}.conv2"] == (now, after)
            assert sizes[f"{place}.conv3"] == (after, after)
            now = after


def test_an_identity_unit_whose_last_convolution_is_zero_is_the_identity():
    block = resnet(width=0.125, generator=0).block1
    x = torch.randn(2, 32, 8, 8)
    for unit in (block.unit2, block.unit3):
        nn.init.zeros_(unit.conv3.weight)
    assert torch.equal(block.unit2(x), x)
    assert torch.equal(block.unit3(x), x[:, :, ::2, ::2])  # where the unit strides: every second pixel


def test_a_unit_is_its_formula():
    """x + conv3(relu(norm(conv2(relu(norm(conv1(a))))))), a = relu(norm(x)); the projection takes a, not x."""
    unit = resnet(width=0.125, generator=0).block2.unit1.eval()
    with torch.no_grad():
        for norm in (unit.preact, unit.norm1, unit.norm2):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        x = torch.randn(2, 32, 5, 5)

        def active(norm, x):
            view = (slice(None), None, None)
            return functional.relu((x - norm.running_mean[view]) / (norm.running_var[view] + 1e-5).sqrt())

        a = active(unit.preact, x)
        r = active(unit.norm1, functional.conv2d(a, unit.conv1.weight))
        r = active(unit.norm2, functional.conv2d(r, unit.conv2.weight, padding=1))
        expected = functional.conv2d(a, unit.shortcut.weight) + functional.conv2d(r, unit.conv3.weight)
        # float32, sums of up to 300 terms of order 1: a few units of 1e-6
        torch.testing.assert_close(unit(x), expected, rtol=1e-4, atol=1e-4)


def test_a_seed_gives_the_same_bits_and_leaves_torchs_generator_alone():
    state = torch.get_rng_state()
    one, same, other = (resnet(width=0.125, generator=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_norms_start_as_the_identity():
    for module in resnet(width=0.125, generator=0).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.running_var == 1).all()
            assert not module.bias.any()
            assert not module.running_mean.any()
            assert module.num_batches_tracked == 0


def test_bad_arguments_are_named():
    with pytest.raises(InputError, match="width"):
        resnet(width=-1)
    with pytest.raises(InputError, match="shape"):
        resnet((3, 0, 32))


def test_the_18_layers_have_two_3x3_convolutions_a_unit():
    network = resnet((3, 32, 32), 10, depth=18, width=0.25, generator=0).eval()
    convolutions = [m for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in name]
    assert len(convolutions) == 17 and {m.kernel_size for m in convolutions[1:]} == {(3, 3)}
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    channels, total = 16, 49 * 3 * 16 + 16
    for out in (16, 16, 32, 32, 64, 64, 128, 128):
        norms, inner = 2 * channels + 2 * out, 9 * channels * out + 9 * out * out + out
        total += norms + inner + (channels * out + out if channels != out else 0)
        channels = out
    assert sum(p.numel() for p in network.parameters()) == total + 2 * channels + channels * 10 + 10


def test_a_plain_network_is_the_residual_one_without_shortcuts():
    network = resnet((3, 8, 8), 4, depth=18, width=0.125, residual=False, norm=None, generator=0)
    assert not any("shortcut" in name for name, _ in network.named_modules())
    unit = network.block1.unit1
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(unit(x), unit.conv2(unit.relu1(unit.conv1(unit.relu(x)))))
    assert unit.conv1.bias is not None  # nothing after it shifts


def test_a_depth_that_is_not_published_is_refused():
    with pytest.raises(InputError, match="depth"):
        resnet(depth=21)


def test_resnet_20_has_its_layers_and_weights():
    network = resnet((3, 32, 32), 10, depth=20, generator=0)
    weighted = [m for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert sum(m.kernel_size == (3, 3) for m in weighted if isinstance(m, torch.nn.Conv2d)) == 19
    assert 265_000 < sum(p.numel() for p in network.parameters()) < 280_000  # He et al.: 0.27 million
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
