"""How far networks of finite width are from the limit, and how far from one another."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from ..core.errors import InputError
from ..core.gradients import per_example_only
from ..core.random import child_seeds, seeded
from ..train import Fleet, build
from ..train import outputs as outputs_of
from .empirical import empirical_ntk
from .limits.result import LimitKernels

if TYPE_CHECKING:
    import xarray

_BYTES = 256 * 2**20  # of derivatives held at once


def half_squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """sum (f - y)^2 / 2 over outputs, mean over examples."""
    return 0.5 * (outputs - targets).square().flatten(1).sum(1).mean()


def ntk_moments(
    make_model: Callable[..., nn.Module],
    x: Tensor,
    *,
    repeats: int = 100,
    steps: int = 0,
    lr: float | None = None,
    y: Tensor | None = None,
    loss_fn: Callable[[Tensor, Tensor], Tensor] = half_squares,
    num_classes: int = 1,
    generator: torch.Generator | int | None = None,
    device: torch.device | str | None = None,
) -> xarray.Dataset:
    """How random the tangent kernel's diagonal is over initializations, and how far a step of descent moves it.

    K(x, x) is the mean over outputs of |df_a(x) / dw|^2. Where depth and width grow together, E K^2 / (E K)^2 stays
    away from 1 and E[K_after - K_before] / E K away from 0: the kernel is neither deterministic nor frozen (Hanin and
    Nica, "Finite Depth and Width Corrections to the Neural Tangent Kernel", ICLR 2020, theorems 1 and 2);
    `theory.ntk_fluctuation` predicts the ratio for ReLU networks. The kernel is heavy-tailed: where inverse widths add
    up to more than 0.3, a few hundred initializations underestimate the ratio.

    Args:
        make_model: a network factory, called by `train.build`; networks are used in evaluation mode, without dropout.
        x: (N, ...) inputs, each considered alone.
        repeats: initializations, at least 2.
        steps: of descent on the loss of one example, that of K, after which the kernel is computed again.
        lr: learning rate of these steps.
        y: their targets (N, ...); drawn from N(0, 1) anew for every initialization if `None`.
        loss_fn: from outputs and targets to a mean loss.
        num_classes: outputs, for the factory.
        generator: what initializations and targets are drawn from.
        device: where networks go; by default where `x` is.

    Returns:
        `kernel` over `repeat` and `example`; `mean`, `std` and `ratio`, E K^2 / (E K)^2, over `example`. With steps
        also `kernel_after`, and `change`, E[K_after - K_before] / E K.

    Raises:
        InputError: too few repetitions, steps without a rate, or networks in which examples act on one another.

    Examples:
        >>> found = ntk_moments(lambda: nn.Linear(3, 1), torch.ones(1, 3), repeats=2, generator=0)
        >>> found.kernel.values.tolist(), found.ratio.values.tolist()
        ([[4.0], [4.0]], [1.0])
    """
    import xarray

    if repeats < 2:
        raise InputError(f"repeats must be at least 2, not {repeats}")
    if steps < 0:
        raise InputError(f"steps must not be negative, not {steps}")
    if steps and lr is None:
        raise InputError("steps of descent need a learning rate: lr=")
    x = x.to(device or x.device)
    seeds = child_seeds(generator, repeats)
    make = functools.partial(_network, make_model, x, num_classes=num_classes, device=device)
    template = make(generator=seeds[0])
    per_example_only(template)
    with torch.no_grad():
        outputs = template(x[:1])
    if y is None:
        draw = seeded(child_seeds(seeds[0], 1)[0])
        drawn = torch.randn(repeats, len(x), *outputs.shape[1:], generator=draw, dtype=outputs.dtype)
        targets = drawn.to(outputs.device)
    else:
        targets = y.to(outputs.device).expand(repeats, *y.shape)
    trainable = [name for name, p in template.named_parameters() if p.requires_grad]
    size = sum(p.numel() for p in template.parameters()) * outputs.numel() * outputs.element_size()
    at_once = max(1, _BYTES // (2 * size * len(x)))
    before, after = [], []
    each = _over_members(template, loss_fn, steps, lr or 0.0, chunk=max(1, _BYTES // (2 * size)))
    for start in range(0, repeats, at_once):
        fleet = Fleet.of([make(generator=seed) for seed in seeds[start : start + at_once]])
        own = {name: fleet.parameters[name] for name in trainable}
        rest = {name: value for name, value in {**fleet.parameters, **fleet.buffers}.items() if name not in own}
        parts = each(own, rest, x, targets[start : start + at_once])
        before.append(parts[0])
        after.append(parts[1])
    kernel = torch.cat(before).double().cpu()
    mean = kernel.mean(0)
    found: dict[str, Any] = {
        "kernel": (("repeat", "example"), kernel),
        "mean": ("example", mean),
        "std": ("example", kernel.std(0)),
        "ratio": ("example", kernel.square().mean(0) / mean**2),
    }
    if steps:
        moved = torch.cat(after).double().cpu()
        found["kernel_after"] = (("repeat", "example"), moved)
        found["change"] = ("example", (moved - kernel).mean(0) / mean)
    values = {name: (dims, value.numpy()) for name, (dims, value) in found.items()}
    return xarray.Dataset(values, {"repeat": range(repeats), "example": range(len(x))})


def finite_width_gap(
    make_model: Callable[..., nn.Module],
    x: Tensor,
    *,
    limit: Callable[[Tensor], LimitKernels] | LimitKernels,
    widths: Sequence[Any],
    repeats: int = 100,
    get: Iterable[Literal["nngp", "ntk"]] = ("nngp", "ntk"),
    num_classes: int = 1,
    generator: torch.Generator | int | None = None,
    device: torch.device | str | None = None,
) -> xarray.Dataset:
    """How far the outputs and tangent kernels of random networks are from the limit of infinite width, by width.

    Outputs of wide networks are Gaussian with the limit's covariance (Lee, Bahri, Novak et al., ICLR 2018), and their
    tangent kernels are all the same one (Jacot, Gabriel and Hongler, NeurIPS 2018, theorem 1). With n the width, the
    excess kurtosis of outputs and the variance of the kernel over initializations are expected to fall like 1 / n. What
    is measured over R initializations has an error of its own, about 1 / sqrt(R): the distance of a mean stops falling
    there.

    Args:
        make_model: a network factory that takes `width`, called by `train.build`; used in evaluation mode.
        x: (N, ...) inputs.
        limit: the kernels of the limit, or what gives them for `x`: `kernels.infinite(network)`, or
            `functools.partial(kernels.mlp_kernels, depth=3)`.
        widths: what `width` is to be.
        repeats: initializations at each width, at least 2.
        get: which of the two to look at. Tangent kernels take a backward pass for every network.
        num_classes: outputs, for the factory; they are alike, so that more of them make the numbers on outputs surer.
        generator: what initializations are drawn from.
        device: where networks go; by default where `x` is.

    Returns:
        Over `width`: with "nngp" `nngp_gap`, |C - K|_F / |K|_F with C the mean over networks and outputs of
        f(x_i) f(x_j), and `excess_kurtosis`, E f^4 / (E f^2)^2 - 3, mean over inputs; with "ntk" `ntk_gap`, that of the
        mean tangent kernel (mean over outputs), and `ntk_variance`, its variance over networks, mean over entries.
        Over `width` and `repeat` `ntk_deviation`, the mean over entries of (Theta - mean Theta)^2.

    Raises:
        InputError: no widths, too few repetitions, a limit of another size, or networks that `empirical_ntk` refuses.
    """
    import xarray

    get, widths = tuple(get), list(widths)
    if not widths or repeats < 2:
        raise InputError(f"at least one width and two repetitions are needed, not {len(widths)} and {repeats}")
    if not get or set(get) - {"nngp", "ntk"}:
        raise InputError(f'get must name "nngp", "ntk" or both, not {get!r}')
    x = x.to(device or x.device)
    known = limit if isinstance(limit, LimitKernels) else limit(x)
    wanted = {name: _square(getattr(known, name), name, len(x)) for name in get}
    rows: list[dict[str, Any]] = []
    for width, seed in zip(widths, child_seeds(generator, len(widths)), strict=True):
        seeds = child_seeds(seed, repeats)
        values, kernels = [], []
        for one in seeds:
            network = _network(make_model, x, num_classes=num_classes, generator=one, device=device, width=width)
            if "nngp" in get:
                values.append(outputs_of(network, x).reshape(len(x), -1).double().cpu())
            if "ntk" in get:
                kernels.append(empirical_ntk(network, x, outputs="trace").double().cpu())
        row: dict[str, Any] = {}
        if "nngp" in get:
            f = torch.stack(values)  # (networks, inputs, outputs)
            covariance = torch.einsum("ric,rjc->ij", f, f) / (f.shape[0] * f.shape[2])
            row["nngp_gap"] = _distance(covariance, wanted["nngp"])
            fourth, second = f.pow(4).mean((0, 2)), f.square().mean((0, 2))
            row["excess_kurtosis"] = float((fourth / second**2 - 3).mean())
        if "ntk" in get:
            theta = torch.stack(kernels)
            mean = theta.mean(0)
            deviation = (theta - mean).square().mean((1, 2))
            row["ntk_gap"] = _distance(mean, wanted["ntk"])
            row["ntk_variance"] = float(deviation.sum() / (repeats - 1))
            row["ntk_deviation"] = deviation.numpy()
        rows.append(row)
    found = {
        name: (("width", "repeat") if name == "ntk_deviation" else "width", [row[name] for row in rows])
        for name in rows[0]
    }
    labels = widths if all(isinstance(width, int) for width in widths) else [str(width) for width in widths]
    return xarray.Dataset(found, {"width": labels, "repeat": range(repeats)})


def _network(
    make_model: Callable[..., nn.Module], x: Tensor, *, num_classes: int, generator: int, device: Any, **knobs: Any
) -> nn.Module:
    built = build(make_model, shape=x.shape[1:], num_classes=num_classes, generator=generator, **knobs)
    return built.to(device or x.device, x.dtype if x.is_floating_point() else None).eval()


def _over_members(
    template: nn.Module, loss_fn: Callable[[Tensor, Tensor], Tensor], steps: int, lr: float, *, chunk: int
) -> Callable[..., tuple[Tensor, Tensor]]:
    """From parameters (members, ...), inputs (N, ...), targets (members, N, ...) to K before and after (members, N)."""

    def outputs(own: dict[str, Tensor], rest: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(template, {**own, **rest}, (one[None],))

    def diagonal(own: dict[str, Tensor], rest: dict[str, Tensor], one: Tensor) -> Tensor:
        jacobian = jacrev(lambda values: outputs(values, rest, one).reshape(-1))(own)
        parts = [part.flatten(1).square().sum(1).mean() for part in jacobian.values()]
        return torch.stack(parts).sum()

    def loss(own: dict[str, Tensor], rest: dict[str, Tensor], one: Tensor, target: Tensor) -> Tensor:
        return loss_fn(outputs(own, rest, one), target[None])

    def both(own: dict[str, Tensor], rest: dict[str, Tensor], one: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        before = diagonal(own, rest, one)
        for _ in range(steps):
            slopes = grad(loss)(own, rest, one, target)
            own = {name: value - lr * slopes[name] for name, value in own.items()}
        return before, diagonal(own, rest, one) if steps else before

    by_example = vmap(both, in_dims=(None, None, 0, 0), chunk_size=chunk)
    return vmap(by_example, in_dims=(0, 0, None, 0))


def _square(kernel: Tensor, name: str, n: int) -> Tensor:
    if kernel is None or kernel.shape != (n, n):
        shape = None if kernel is None else tuple(kernel.shape)
        raise InputError(f"the limit's {name} must be a matrix ({n}, {n}), not of shape {shape}")
    return kernel.double().cpu()


def _distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())
