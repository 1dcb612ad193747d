import numpy as np
import pytest
import torch

from phenoscope import data, models, prune
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import pruned_photos as bench


def test_the_residual_network_has_thirty_two_layers_and_the_papers_size():
    network = bench.NETWORKS["ResNet-32"]((3, 32, 32), 10, generator=0)
    shapes = [weight.shape for weight in network.parameters() if weight.ndim > 1 and weight.shape[2:] != (1, 1)]
    assert len(shapes) == 32 and network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    # 1.86 million weights in 3x3 convolutions of 32, 64 and 128 channels, by hand
    by_hand = 3 * 32 * 9 + 10 * 32**2 * 9 + (32 + 9 * 64) * 64 * 9 + (64 + 9 * 128) * 128 * 9 + 1280
    assert sum(shape.numel() for shape in shapes) == by_hand
    first = network.block1.unit1.conv1.weight
    assert first.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)  # He; 9,216 draws


def test_every_cell_of_the_comparison_is_trained(monkeypatch, tmp_path):
    def tiny(name, root, **_):
        assert root == str(tmp_path)
        return data.digits(size=16, channels=3, train=300, generator=0)

    monkeypatch.setattr(bench.data, "from_torchvision", tiny)
    small = {name: lambda shape, num_classes, generator: models.mlp(shape, num_classes, width=16, generator=generator)
             for name in bench.NETWORKS}  # fmt: skip
    monkeypatch.setattr(bench, "NETWORKS", small)
    found = bench.compared(Lab(0), dict(grasp=prune.grasp, snip=prune.snip), folder=str(tmp_path), epochs=2, seeds=2)
    assert found.dims == ("photos", "network", "seed", "arm") and found.shape == (2, 2, 2, 2)
    assert found.arm.values.tolist() == ["grasp", "snip"] and found.network.values.tolist() == ["VGG-19", "ResNet-32"]
    assert found.mean() > 0.1  # a few steps on few images
    assert len(np.unique(found)) > 8
    again = bench.compared(Lab(0), dict(grasp=prune.grasp, snip=prune.snip), folder=str(tmp_path), epochs=2, seeds=2)
    assert found.identical(again)


def test_the_deep_networks_can_be_scored_and_trained():
    x, y = data.digits(size=32, channels=3, train=20, generator=0).train
    network = models.resnet(x.shape[1:], 10, depth=32, width=0.25, generator=0)
    masks = prune.grasp(network, torch.nn.functional.cross_entropy, (x, y), density=0.02)
    assert masks.density == pytest.approx(0.02, rel=0.01)
    torch.manual_seed(0)
    one, other = (bench.on_moved_images(network, x, y).item() for _ in range(2))
    assert one != other  # moved anew every time
