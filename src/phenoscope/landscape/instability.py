"""Do copies of one network that see different data orders end in the same valley?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from ..core.errors import InputError
from ..core.parameters import flatten, parameter_dict
from ..core.random import child_seeds
from ..data.batches import Data, as_tensors
from ..train.build import build
from ..train.fit import fit
from ..train.members import Fleet
from ..train.outputs import outputs
from ..train.schedule import Schedule
from ..train.watch import Watch
from .interpolate import curves, height
from .products import Loss

if TYPE_CHECKING:
    import xarray

Masks = Mapping[str, Tensor]


def instability(
    make_model: Callable[..., nn.Module],
    data: Data,
    *,
    ks: Sequence[int],
    steps: int,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    test: Data | None = None,
    pairs: int = 1,
    masks: Masks | Callable[[nn.Module], Masks] | None = None,
    schedule: Schedule | None = None,
    batch_size: int = 64,
    loss_fn: Loss = functional.cross_entropy,
    objective: Callable[[nn.Module, Any, Any], Tensor] | None = None,
    keep_momentum: bool = True,
    points: int = 30,
    refresh_bn: bool = True,
    stable_below: float = 0.02,
    generator: torch.Generator | int | None = None,
    device: torch.device | str | None = None,
) -> xarray.Dataset:
    """Train a network to step k, go on with two copies on different data orders, and measure the barrier between them.

    The instability analysis of Frankle, Dziugaite, Roy and Carbin (ICML 2020, section 2). The trunk is one training,
    whatever k is; the copies continue it to the last step where its schedule stands. With `masks` it is that of a
    sparse subnetwork rewound to k (section 4): the trunk is dense, both copies carry the same masks from step k on,
    and with them every network in between.

    Args:
        make_model: a network factory, called through `train.build`.
        data: what to train on: a pair of tensors, or anything that `data.as_tensors` reads into memory.
        ks: when the copies part; 0 is the initialization.
        steps: length of the whole training.
        optimizer: a factory from parameters, such as `functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)`.
        test: further data to measure barriers on.
        pairs: how many pairs of copies part at every k.
        masks: of a subnetwork; or a function that makes them of the dense network at the end of its training, such as
            `functools.partial(prune.one_shot, density=0.1)`.
        schedule: of the learning rate, over the whole training.
        batch_size: examples in a batch.
        loss_fn: from outputs and labels to their mean loss.
        objective: what is trained in place of `loss_fn`, as in `train.fit`, for instance on augmented inputs. What it
            draws from torch's own generator is part of a copy's data order, and so is dropout.
        keep_momentum: whether the copies take over the state of the trunk's optimizer, or begin with a new one.
        points: on the line between two copies, with both ends.
        refresh_bn: whether batch-norm statistics are recomputed on the training data at every point.
        stable_below: the barrier of error up to which a step counts as stable.
        generator: what the network and all data orders are drawn from.
        device: where to train, by default CUDA if there is one.

    Returns:
        Over `part` ("train", and "test" where it was given), `k` and `pair`:

        - `error`, `loss` over `alpha` too: on the line between the copies, with the copies themselves at its ends.
        - `error_barrier`, `loss_barrier`: largest value minus the mean of the ends.
        - `disagreement`: the share of examples on which the copies decide differently, where there are classes.
        - `distance`, `cosine` (without `part`): of the copies' parameters.
        - `stable_k` (over `part` alone): the smallest k from which on the error barrier, averaged over pairs, is below
          `stable_below`; NaN if there is none.

        Where batch-norm statistics were recomputed, `error_interpolated` and `loss_interpolated` are the curves with
        interpolated ones.

    Raises:
        InputError: no k, a k that is not from 0 to below `steps`, or no pairs.
    """
    import numpy
    import xarray

    ks = sorted({int(k) for k in ks})
    if not ks or ks[0] < 0 or ks[-1] >= steps:
        raise InputError(f"ks are steps from 0 to {steps - 1}, at least one, not {ks}")
    if pairs < 1:
        raise InputError(f"pairs must be at least 1, not {pairs}")
    x, y = as_tensors(data)
    parts: dict[str, Data] = {"train": (x, y)} | ({} if test is None else {"test": test})
    model_seed, order_seed, child_seed = child_seeds(generator, 3)
    classes = None if y.is_floating_point() else int(y.max()) + 1
    model = build(make_model, shape=tuple(x.shape[1:]), num_classes=classes, generator=model_seed)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.to(place)

    def trained(
        network: nn.Module, updater: Optimizer, start: int, end: int, order: int, held: Masks | None, watch: Any = None
    ) -> None:
        with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
            torch.manual_seed(order)
            fit(
                network, (x, y), steps=end - start, optimizer=updater, masks=held, loss_fn=loss_fn,
                objective=objective, batch_size=batch_size, generator=order, watch=watch,
                schedule=None if schedule is None else (lambda step: schedule(start + step)),
            )  # fmt: skip

    updater = optimizer(model.parameters())
    rates = [group["lr"] for group in updater.param_groups]
    trunks: list[tuple[nn.Module, Optimizer]] = []

    def keep(network: nn.Module) -> int:
        kept = copy.deepcopy((network, updater))
        for group, rate in zip(kept[1].param_groups, rates, strict=True):
            group["lr"] = rate  # without the schedule's factor, which comes on again
        trunks.append(kept)
        return len(trunks)

    length = steps if callable(masks) else ks[-1]
    if length:
        trained(model, updater, 0, length, order_seed, None, Watch({"trunk": keep}, at=ks))
    else:
        keep(model)
    if callable(masks):
        masks = masks(model)
    found = []
    for k, trunk, seed in zip(ks, trunks, child_seeds(child_seed, len(ks)), strict=True):
        orders = child_seeds(seed, 2 * pairs)
        each = []
        for pair in range(pairs):
            copies = []
            for own in orders[2 * pair : 2 * pair + 2]:
                network, state = copy.deepcopy(trunk)
                trained(network, state if keep_momentum else optimizer(network.parameters()), k, steps, own, masks)
                copies.append(network)
            each.append(_compared(copies, parts, points, loss_fn, refresh_bn))
        found.append(xarray.concat(each, "pair"))
    out = xarray.concat(found, "k").assign_coords(k=ks, pair=numpy.arange(pairs))
    return out.assign(stable_k=_stable(out["error_barrier"].mean("pair"), stable_below))


def _compared(
    copies: Sequence[nn.Module], parts: Mapping[str, Data], points: int, loss_fn: Loss, refresh_bn: bool
) -> Any:
    line = curves(Fleet.of(copies), parts, points=points, loss_fn=loss_fn, refresh_bn=refresh_bn, train=parts["train"])
    out = line.isel(statistics=0, drop=True)
    out = out.assign({f"{name}_barrier": height(out[name]) for name in ("error", "loss")})
    if line.sizes["statistics"] == 2:
        out = out.assign(
            {f"{name}_interpolated": line[name].isel(statistics=1, drop=True) for name in ("error", "loss")}
        )
    one, other = (flatten(parameter_dict(network)).double() for network in copies)
    out["distance"] = float((one - other).norm())
    out["cosine"] = float(functional.cosine_similarity(one, other, dim=0))
    if not bool(out["error"].isnull().any()):
        apart = []
        for part in parts.values():
            decisions = [outputs(network, part).argmax(1) for network in copies]
            apart.append(float((decisions[0] != decisions[1]).double().mean()))
        out["disagreement"] = "part", apart
    return out


def _stable(barriers: xarray.DataArray, below: float) -> xarray.DataArray:
    """The smallest k from which on all are below, along `k`."""
    import numpy

    below_after = (barriers < below).isel(k=slice(None, None, -1)).cumprod("k").isel(k=slice(None, None, -1)) > 0
    return barriers["k"].where(below_after).min("k").astype(numpy.float64)
