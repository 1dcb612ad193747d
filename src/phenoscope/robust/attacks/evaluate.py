"""How accurate networks are under the worst of several attacks, and whether to believe it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.random import child_seeds
from ...data.batches import Data, batches
from ...train import Fleet
from ...train.outputs import in_mode, placed
from .balls import Clip
from .pgd import attacked, forward, pgd, rows_at_once
from .random_search import random_search

if TYPE_CHECKING:
    import xarray

Attack = Callable[..., Tensor]
_SLACK = 0.01  # accuracies as far apart as this are called equal


def evaluate(
    model: nn.Module | Fleet,
    data: Data | Sequence[tuple[Tensor, Tensor]],
    *,
    eps: float,
    norm: str = "inf",
    clip: Clip = None,
    strong: bool = False,
    surrogate: nn.Module | None = None,
    generator: torch.Generator | int | None = None,
) -> xarray.Dataset:
    """Accuracy under the worst of several attacks, example by example, with signs of masked gradients.

    The attacks: none ("clean"), `pgd` on the cross-entropy with 20 steps and 2 restarts ("ce"), and on the margin with
    20 steps ("margin"). `strong` adds 100 steps with 5 restarts on the cross-entropy ("ce-100"), the targeted margin
    for each of up to 9 other classes, those with the highest clean scores ("targeted"), and `random_search` without
    gradients ("search"). An example counts as robust if no attack breaks it.

    After Athalye, Carlini and Wagner (ICML 2018, section 3.1), gradients are masked if one of these fails: at a radius
    as large as the data's range hardly anything is left ("huge-eps": at most 0.05); examples that break a surrogate
    break the network no more often than its own ("transfer"); twenty steps break as many as five ("more-steps"). A
    difference of up to 0.01 is let pass.

    Args:
        model: from a batch to scores (N, C), or a fleet, whose members are attacked all at once.
        data: a pair of tensors `(x, y)`, or a loader of such batches; for a fleet also a sequence of one pair a member,
            of equal shapes.
        eps: radius of the ball.
        norm: "inf", "2" or "1".
        clip: the range of the data, as `Split.range`, if it has one.
        strong: whether to add the slow attacks.
        surrogate: another network, trained in the same way or better without a defense, for the transfer check; in a
            fleet with one data set the members are one another's by default. Without one that check is left out.
        generator: what the attacks draw from.

    Returns:
        A dataset: `correct` over `attack` and `example`, `accuracy` over `attack`; `natural` (the share misclassified
        when clean), `boundary` (correct when clean and broken by an attack), `robust_error` (either) and
        `robust_accuracy`; `checked`, the accuracy that a check compares, and `masked`, whether it fails, over `check`.
        In a fleet all of them have `member` first.

    Raises:
        InputError: as `pgd` does, or data that `data.batches` refuses.
    """
    ball: dict[str, Any] = {"eps": eps, "norm": norm, "clip": clip}
    attacks: dict[str, Attack] = {
        "ce": partial(pgd, steps=20, restarts=2, **ball),
        "margin": partial(pgd, steps=20, loss="margin", **ball),
    }
    if strong:
        attacks["ce-100"] = partial(pgd, steps=100, restarts=5, **ball)
        attacks["targeted"] = partial(_targeted, **ball)
        attacks["search"] = partial(random_search, **ball)
    seeds = child_seeds(generator, len(attacks) + 2)
    draws: list[torch.Generator] = []
    right: list[Tensor] = []
    checks: list[Tensor] = []
    others = len(model) if isinstance(model, Fleet) else 1
    shared = _is_pair(data) or not isinstance(data, Sequence)
    for net, x, y in _parts(model, data):
        draws = draws or [torch.Generator(x.device).manual_seed(seed) for seed in seeds]
        chunk = None if isinstance(net, nn.Module) else len(x)
        with attacked(net):
            found = [
                attack(net, x, y, generator=own, chunk=chunk)
                for attack, own in zip(attacks.values(), draws, strict=False)
            ]
            wide = {**ball, "eps": _huge(x, norm, clip)}
            tried = [
                pgd(net, x, y, steps=20, generator=draws[-2], chunk=chunk, **wide),
                pgd(net, x, y, steps=5, generator=draws[-1], chunk=chunk, **ball),
            ]
            if surrogate is not None and shared:
                own_x, own_y = x[: len(x) // others], y[: len(x) // others]
                away = pgd(surrogate, own_x, own_y, steps=20, generator=draws[-2], **ball)
                tried.append(away.repeat(others, *[1] * (x.ndim - 1)))
            elif others > 1 and shared:
                tried.append(found[0].roll(len(x) // others, 0))
            right.append(torch.stack([forward(net, at, chunk=chunk).argmax(1) == y for at in (x, *found)]))
            checks.append(torch.stack([forward(net, at, chunk=chunk).argmax(1) == y for at in tried]))
    names = ["clean", *attacks]
    members = len(model) if isinstance(model, Fleet) else None
    return _dataset(_joined(right, members), _joined(checks, members), names, members)


def error_decomposition(
    model: nn.Module | Fleet,
    data: Data | Sequence[tuple[Tensor, Tensor]],
    *,
    eps: float,
    norm: str = "inf",
    clip: Clip = None,
    strong: bool = False,
    generator: torch.Generator | int | None = None,
) -> xarray.Dataset:
    """The error under attack as natural error plus boundary error (Zhang et al., ICML 2019, section 3).

    Args:
        model: from a batch to scores (N, C), or a fleet.
        data, eps, norm, clip, strong, generator: as in `evaluate`, whose attacks are used.

    Returns:
        `natural`, the share misclassified when clean; `boundary`, the share correct when clean and broken by an attack;
        `robust_error`, exactly their sum. In a fleet over `member`.
    """
    found = evaluate(model, data, eps=eps, norm=norm, clip=clip, strong=strong, generator=generator)
    return found[["natural", "boundary", "robust_error"]]


def _parts(model: nn.Module | Fleet, data: Any) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """What is attacked, with examples and labels: a fleet's member after member, as if it were one network."""
    if not isinstance(model, Fleet):
        if not isinstance(model, nn.Module):
            raise InputError(f"robustness is evaluated of an nn.Module or a fleet, not a {type(model).__name__}")
        for x, y in batches(data, max(1, len(data[0])) if _is_pair(data) else 1):
            x, y = placed(x, y, model)
            yield model, x, y
        return
    tensors, members = {**model.parameters, **model.buffers}, len(model)

    def together(rows: Tensor) -> Tensor:
        return model.program.outputs(tensors, rows.unflatten(0, (members, -1))).flatten(0, 1)

    own = isinstance(data, Sequence) and not _is_pair(data)
    sample = data[0][0] if own else data[0] if _is_pair(data) else None
    size = 1 if sample is None else max(1, 4 * rows_at_once(sample) // members)  # a loader's batches come as they are
    with in_mode(model.program.network, training=False):
        for x, y in _by_member(data, size) if own else batches(data, size):
            if not own:
                x, y = x.expand(members, *x.shape), y.expand(members, *y.shape)
            if len(x) != members:
                raise InputError(f"{len(x)} pairs of data for {members} members: give one each, or one for all")
            yield together, x.to(model.device, model.dtype).flatten(0, 1), y.to(model.device).flatten()


def _by_member(data: Sequence[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (members, batch, ...) of one pair a member."""
    if len({(x.shape, y.shape) for x, y in data}) != 1:
        raise InputError("the members' data differ in shape: give all the same number of examples")
    return zip(*(torch.stack(parts).split(size, 1) for parts in zip(*data, strict=True)), strict=True)


def _is_pair(data: Any) -> bool:
    return isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def _targeted(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    generator: torch.Generator,
    chunk: int | None,
    **ball: Any,
) -> Tensor:
    """Towards each of the classes next to the label in turn; the last point that is misclassified stays."""
    scores = forward(model, x, chunk=chunk)
    others = scores.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)[:, : scores.shape[1] - 1]
    best = x
    for target in others[:, :9].unbind(1):
        at = pgd(
            model, x, target, steps=20, targeted=True, loss="margin", generator=generator, chunk=chunk, **ball
        )  # fmt: skip
        broken = forward(model, at, chunk=chunk).argmax(1) != y
        best = torch.where(broken.reshape(-1, *[1] * (x.ndim - 1)), at, best)
    return best


def _huge(x: Tensor, norm: str, clip: Clip) -> float:
    """A radius that lets every input become any other."""
    low, high = clip or (2 * x.min().item(), 2 * x.max().item())
    width, size = max(high - low, 1e-6), x[0].numel()
    return float(width * {"inf": 1.0, "2": size**0.5, "1": size}[norm])


def _joined(parts: list[Tensor], members: int | None) -> Tensor:
    """(attacks, examples), or (members, attacks, examples)."""
    if members is None:
        return torch.cat(parts, 1).cpu()
    return torch.cat([part.unflatten(1, (members, -1)).transpose(0, 1) for part in parts], 2).cpu()


def _dataset(correct: Tensor, seen: Tensor, names: list[str], members: int | None) -> xarray.Dataset:
    import numpy
    import xarray

    lead = () if members is None else ("member",)
    right = xarray.DataArray(
        correct.numpy(), dims=(*lead, "attack", "example"), coords={"attack": names}, name="correct"
    )
    if members is not None:
        right = right.assign_coords(member=numpy.arange(members))
    accuracy, worst = right.mean("example"), right.all("attack").mean("example")
    clean = accuracy.sel(attack="clean", drop=True)
    labels = ["huge-eps", "more-steps", "transfer"][: seen.shape[-2]]
    checked = xarray.DataArray(seen.double().mean(-1).numpy(), dims=(*lead, "check"), coords={"check": labels})
    limits = {"huge-eps": checked > 0.05, "more-steps": accuracy.sel(attack="ce", drop=True) > checked + _SLACK}
    limits["transfer"] = checked < accuracy.sel(attack="ce", drop=True) - _SLACK
    masked = xarray.concat([limits[label].sel(check=label) for label in labels], "check").transpose(*lead, "check")
    return xarray.Dataset(
        {
            "correct": right,
            "accuracy": accuracy,
            "robust_accuracy": worst,
            "natural": 1 - clean,
            "boundary": (right.sel(attack="clean", drop=True) & ~right.all("attack")).mean("example"),
            "robust_error": 1 - worst,
            "checked": checked,
            "masked": masked,
        }
    )
