"""The bench of pruning before training: digits, an MLP 64-256-256-10, masks, and one recipe to train what is left."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import data, landscape, models, prune, train

digits = functools.partial(data.digits, train=1000)
mlp = functools.partial(models.mlp, width=(256, 256), init="he")
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
BATCH = 64

Pair = tuple[Tensor, Tensor]


def setting(lab, *, model, dataset, seed) -> tuple[data.Split, nn.Module]:
    """The data and the untrained network of a seed: the same for every method and density."""
    split = data.load(dataset, generator=lab.seed("split", seed)).to(lab.device)
    network = train.build(
        model,
        shape=tuple(split.train[0].shape[1:]),
        num_classes=len(split.classes),
        generator=lab.seed("network", seed),
    )
    return split, network.to(lab.device)


def balanced(part: Pair, n: int, classes: int, *, generator: int) -> Pair:
    """A batch of about n examples, equally many of every class as far as there are."""
    return balanced_and_rest(part, n, classes, generator=generator)[0]


def balanced_and_rest(part: Pair, n: int, classes: int, *, generator: int) -> tuple[Pair, Pair]:
    """The same, and the examples that are not in it, in random order."""
    x, y = part
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(generator)).to(y.device)
    each = max(1, n // classes)
    rows = torch.cat([order[y[order] == label][:each] for label in range(classes)])
    rest = order[~torch.isin(order, rows)]
    return (x[rows], y[rows]), (x[rest], y[rest])


def random_masks(network: nn.Module, density: float, *, generator: int) -> prune.Masks:
    """Masks that keep weights at random, whatever their layer."""
    rng = torch.Generator().manual_seed(generator)
    shapes = prune.Masks.ones(network)
    return prune.keep_top(
        {name: torch.rand(mask.shape, generator=rng) for name, mask in shapes.items()}, density=density
    )


def accuracies(
    lab, network: nn.Module, split: data.Split, masks: Sequence[Mapping[str, Tensor] | None], *, steps: int, seed: int
) -> list[float]:
    """Test accuracy of the network trained under each of the masks, from the same weights with the same batches."""
    order = lab.seed("order", seed)
    trained = train.fleet(
        [network] * len(masks), split.train, steps=steps, optimizer=SGD, batch_size=BATCH, masks=list(masks),
        generator=[order] * len(masks),
    )  # fmt: skip
    return trained.accuracy(split.test).tolist()


def gradient_norm(network: nn.Module, masks: prune.Masks, part: Pair) -> float:
    """The norm of the gradient of the cross-entropy with respect to the surviving weights of the masked network."""
    pruned, masks = masks.apply_(copy.deepcopy(network)), masks.to(part[1].device)
    slope = landscape.loss_gradient(pruned, functional.cross_entropy, part, names=masks)
    return float(torch.stack([(each * masks[name]).square().sum() for name, each in slope.items()]).sum().sqrt())


def share_on_varying_inputs(masks: Mapping[str, Tensor], x: Tensor) -> float:
    """Of the surviving weights of the first layer, the share on the half of the inputs that vary most over `x`.

    NaN if the first layer is no matrix with one column for each input, or has no weights left.
    """
    first = next(iter(masks.values()))
    inputs = x.flatten(1)
    if first.ndim != 2 or first.shape[1] != inputs.shape[1] or not bool(first.any()):
        return float("nan")
    order = inputs.var(0).argsort(descending=True, stable=True)
    kept = first.to(order.device).sum(0)
    return float(kept[order[: len(order) // 2]].sum() / kept.sum())
