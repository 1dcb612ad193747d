import copy
import math

import pytest
import torch

from phenoscope.lab.map import Lab
from phenoscope.prune import Masks, one_shot
from phenoscope.studies.benches import pruned_digits as bench

LAB = Lab(0)


@pytest.fixture(scope="module")
def setting():
    return bench.setting(LAB, model=bench.mlp, dataset=bench.digits, seed=1)


def test_a_seed_gives_one_split_and_one_network(setting):
    split, network = setting
    again, twin = bench.setting(LAB, model=bench.mlp, dataset=bench.digits, seed=1)
    assert [len(part[1]) for part in (split.train, split.test)] == [1000, 797]
    assert torch.equal(split.train[0], again.train[0])
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))
    assert Masks.ones(network).counts == {"linear1.weight": 64 * 256, "linear2.weight": 256**2, "logits.weight": 2560}
    assert abs(network.linear2.weight.std().item() / (2 / 256) ** 0.5 - 1) < 0.02  # He; 65,536 draws


def test_a_batch_has_as_many_examples_of_every_class(setting):
    split, _ = setting
    x, y = bench.balanced(split.train, 250, 10, generator=0)
    assert y.bincount().tolist() == [25] * 10
    assert len({tuple(row) for row in x.flatten(1).tolist()}) > 245  # hardly any image twice
    assert not torch.equal(x, bench.balanced(split.train, 250, 10, generator=1)[0])


def test_random_masks_keep_exactly_the_share_whatever_the_layer(setting):
    _, network = setting
    masks = bench.random_masks(network, 0.05, generator=0)
    assert sum(masks.counts.values()) == round(0.05 * 84_480)
    assert abs(masks["linear2.weight"].float().mean() - 0.05) < 0.003  # sd 0.0009
    assert masks == bench.random_masks(network, 0.05, generator=0) != bench.random_masks(network, 0.05, generator=1)


def test_equal_masks_train_to_equal_accuracy_and_none_is_the_whole_network(setting):
    split, network = setting
    masks = one_shot(network, density=0.1)
    found = bench.accuracies(LAB, network, split, [None, masks, masks, Masks.ones(network)], steps=60, seed=0)
    assert found[1] == found[2] and found[0] == found[3]
    assert 0.5 < found[1] < found[0]


def test_the_share_on_varying_inputs_is_counted_by_weight():
    x = torch.zeros(10, 1, 2, 2)
    x[:, 0, 0, 0] = torch.arange(10.0)
    x[:, 0, 1, 1] = torch.arange(10.0) / 2
    first = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0]])  # 3 of 4 on the first and the last input
    assert bench.share_on_varying_inputs(Masks({"w": first}), x) == 0.75
    assert math.isnan(bench.share_on_varying_inputs(Masks({"w": torch.ones(2, 3)}), x))
    assert math.isnan(bench.share_on_varying_inputs(Masks({"w": torch.zeros(2, 4)}), x))


def test_what_is_not_in_the_batch_is_the_rest(setting):
    split, _ = setting
    part, rest = bench.balanced_and_rest(split.train, 100, 10, generator=0)
    assert torch.equal(part[0], bench.balanced(split.train, 100, 10, generator=0)[0])
    rows = lambda x: {tuple(row) for row in x.flatten(1).tolist()}  # noqa: E731
    assert len(part[1]) == 100 and len(rest[1]) == 900
    assert rows(part[0]) | rows(rest[0]) == rows(split.train[0])
    assert torch.cat([part[1], rest[1]]).bincount().equal(split.train[1].bincount())


def test_the_gradient_norm_is_that_of_the_surviving_weights(setting):
    split, network = setting
    x, y = split.train[0][:50], split.train[1][:50]
    masks = one_shot(network, density=0.2)
    pruned = masks.apply_(copy.deepcopy(network))
    torch.nn.functional.cross_entropy(pruned(x), y).backward()
    squares = [(pruned.get_parameter(name).grad * mask).square().sum() for name, mask in masks.items()]
    # float32, and sums over the batch taken in another order
    assert bench.gradient_norm(network, masks, (x, y)) == pytest.approx(float(sum(squares).sqrt()), rel=1e-5)
    assert all(parameter.grad is None for parameter in network.parameters())
