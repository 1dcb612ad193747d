import pytest
import torch
from torch import nn

from phenoscope import data
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import tinted as bench


def test_the_encoder_is_that_of_the_specification():
    net = bench.encoder((3, 12, 12), generator=0)
    convolutions = [layer for layer in net if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride[0], c.bias) for c in convolutions] == [
        (3, 16, 2, None), (16, 32, 1, None), (32, 64, 2, None),
    ]  # fmt: skip
    assert net(torch.zeros(2, 3, 12, 12)).shape == (2, 576)


def test_views_have_the_distortions_named_and_end_with_faint_noise():
    x = torch.rand(200, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    noisy = bench.view(())(x, torch.Generator().manual_seed(0))
    assert (noisy - x).std().item() == pytest.approx(0.05, rel=0.02)
    white = torch.ones(50, 3, 12, 12)
    moved, tinted = (bench.view((kind,))(white, torch.Generator().manual_seed(0)) for kind in ("spatial", "color"))
    assert (moved - 1).abs().max() < 0.3 and (tinted.mean((2, 3)) - 1).std() > 0.1


def test_arms_begin_as_one_encoder_and_see_the_same_images_in_the_same_order():
    lab, split = Lab(0), data.tinted_digits(generator=0)
    first, second = (bench.network(lab, bench.encoder, split, 0) for _ in range(2))
    assert torch.equal(first[0].weight, second[0].weight)
    one, two = (
        bench.contrasted(lab, net, split, lambda x, generator: x, seed=0, steps=2, batch=16, temperature=temperature)
        for net, temperature in ((first, 0.5), (second, 1.0))
    )
    assert one.head[1].weight.shape == two.head[1].weight.shape == (128, 576)
    assert not torch.equal(first[0].weight, second[0].weight)


def test_the_encoder_at_scale_ends_before_its_classifier():
    assert bench.resnet18((3, 32, 32), generator=0)(torch.zeros(1, 3, 32, 32)).shape == (1, 512)
