"""Integrated gradients: what every input contributes along a straight path from a baseline."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.random import seeded
from ...core.taps import Layer, activations, rows_at_once, suited, tap
from ..baseline import Baseline, baseline_for
from ..score import Output, Score, Target, explaining, input_gradient, real_input, score_of
from .attribution import Attribution

Sampler = Callable[[int, torch.Generator], Tensor]
_TOLERANCE = 0.05
_AUTO = (20, 1280)


def integrated_gradients(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    *,
    baseline: Baseline | Sampler = 0.0,
    steps: int | str = 50,
    rule: str = "gauss",
    output: Output = "logit",
    layer: Layer | None = None,
    generator: torch.Generator | int | None = None,
    chunk: int | None = None,
) -> Attribution:
    """Attributions (x - x0) * int_0^1 dF(x0 + a (x - x0))/dx da.

    After Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks" (ICML 2017), equation 1; F is the score of
    the class settled at `x`. They add up to F(x) - F(x0) up to the error of the numerical rule; a warning is given
    where that error is over 5 %. With a sampler as baseline, the mean over drawn baselines and one uniform a for each:
    expected gradients (Erion, Janizek, Sturmfels, Lundberg, Lee, 2021).

    Args:
        model: from a batch to scores (N, C); it is left as it was found.
        x: inputs (N, ...), real; token ids (N, T) if a `layer` embeds them.
        target: `None` for the network's decision at `x`, a class, (N,) classes, or a function from outputs to (N,).
        baseline: x0: a number, a tensor, "blur", "mean", or `sampler(n, generator) -> (n, ...)`. With a `layer` it is a
            value of that layer's output; integers of the shape of `x` are token ids.
        steps: nodes on the path, or draws from a sampler; "auto" doubles them from 20 to 1280 for the inputs whose
            error is over 5 %.
        rule: "gauss" (Gauss-Legendre), "midpoint", or "right" (the paper's sum).
        output: what F is taken from: "logit", "probability", or a function of the outputs.
        layer: integrate over what this layer puts out instead of over `x`; for an embedding the values are summed over
            its dimensions.
        generator: what draws baselines and their a.
        chunk: points in a pass; chosen by their size if not given.

    Returns:
        Values of the shape of `x`, or of the output of a `layer` that is no embedding; change and gap (N,).

    Raises:
        InputError: inputs that are not real numbers, an unknown rule, fewer than one step, a target that the outputs
            do not have, or a baseline that does not fit.

    Examples:
        >>> net = nn.Linear(2, 1)
        >>> _ = net.weight.data.copy_(torch.tensor([[2.0, -1.0]]))
        >>> integrated_gradients(net, torch.tensor([[3.0, 5.0]]), baseline=1.0).values
        tensor([[ 4., -4.]])
    """
    if rule not in _RULES:
        raise InputError(f"rule must be one of {', '.join(map(repr, _RULES))}, not {rule!r}")
    auto = steps == "auto"
    if not auto and (not isinstance(steps, int) or steps < 1):
        raise InputError(f'steps must be at least 1, or "auto", not {steps!r}')
    sampled = callable(baseline) and not isinstance(baseline, Tensor)
    if auto and sampled:
        raise InputError('steps="auto" is for one baseline; say how many to draw from the sampler')
    with explaining(model):
        path = _Path(model, x, target, output, layer, chunk)
        if sampled:
            result = path.expected(baseline, int(steps), seeded(generator))  # type: ignore[arg-type]
            return path.shown(result)  # a sampled mean has a sampling error that no further step would remove
        start = path.start(baseline)  # type: ignore[arg-type]
        change = path.score_at(path.end) - path.score_at(start)
        count = _AUTO[0] if auto else int(steps)
        values = path.integral(start, *_RULES[rule](count), torch.arange(len(x), device=path.end.device))
        while auto and count < _AUTO[1]:
            left = _incomplete(values, change).nonzero()[:, 0]
            if not len(left):
                break
            count *= 2
            values[left] = path.integral(start, *_RULES[rule](count), left)
    if missed := int(_incomplete(values, change).sum()):
        warnings.warn(
            f"{missed} of {len(x)} integrated gradients miss the change of the score by over 5 % with {count} steps; "
            'give more steps, or steps="auto"',
            stacklevel=2,
        )
    return path.shown((values, change))


class _Path:
    """The straight way to every input, or to what a layer makes of it."""

    def __init__(
        self, model: nn.Module, x: Tensor, target: Target, output: Output, layer: Layer | None, chunk: int | None
    ) -> None:
        self.model, self.layer, self.chunk = model, layer, chunk
        if layer is None:
            self.x = self.end = real_input(model, x)
        else:
            self.x = suited(model, x.detach()).clone()
            self.end = activations(model, self.x, layer, chunk=chunk).clone()
            if not self.end.is_floating_point():
                raise InputError(f"the layer must put out real numbers, not {self.end.dtype}")
        self.score: Score = score_of(model, self.x, target, output, chunk=chunk)
        self.rows = rows_at_once(self.end, chunk)

    def start(self, baseline: Baseline) -> Tensor:
        """The beginnings of the paths, of the shape of their ends."""
        if self.layer is not None and isinstance(baseline, Tensor) and not baseline.is_floating_point():
            tokens = baseline.to(self.x.device).broadcast_to(self.x.shape)
            return activations(self.model, tokens, self.layer, chunk=self.chunk).clone()
        return baseline_for(self.end, baseline)

    def values_at(self, points: Tensor, rows: Tensor) -> Tensor:
        if self.layer is None:
            return self.score(self.model(points), rows)
        with tap(self.model, self.layer, replace=points):
            return self.score(self.model(self.x[rows]), rows)

    def score_at(self, points: Tensor) -> Tensor:
        rows = torch.arange(len(points), device=points.device)
        with torch.no_grad():
            return torch.cat([self.values_at(points[at], at) for at in rows.split(self.rows)])

    def gradient_at(self, points: Tensor, rows: Tensor) -> Tensor:
        leaf = points.detach().requires_grad_()
        return input_gradient(self.values_at(leaf.clone(), rows), leaf)

    def integral(self, start: Tensor, nodes: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
        """Attributions of the examples `rows`, all nodes of a few examples in a pass."""
        parts = []
        for at in rows.split(self.rows):
            step = self.end[at] - start[at]
            total = torch.zeros_like(step)
            group = max(1, self.rows // len(at))
            for a, w in zip(nodes.split(group), weights.split(group), strict=True):
                a, w = (t.to(step.device, step.dtype).reshape(-1, *[1] * step.ndim) for t in (a, w))
                points = (start[at] + a * step).flatten(0, 1)
                gradient = self.gradient_at(points, at.repeat(len(a))).unflatten(0, (len(a), len(at)))
                total += (w * gradient).sum(0)
            parts.append(step * total)
        return torch.cat(parts)

    def expected(self, sampler: Sampler, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mean attributions and mean change over drawn baselines."""
        values, base = torch.zeros_like(self.end), self.end.new_zeros(len(self.end))
        ends = self.score_at(self.end)
        rows = torch.arange(len(self.end), device=self.end.device)
        for _ in range(draws):
            drawn = sampler(len(self.end), generator)
            if drawn.shape != self.end.shape:
                raise InputError(f"the sampler gave baselines {tuple(drawn.shape)} for {tuple(self.end.shape)}")
            start = drawn.to(self.end.device, self.end.dtype)
            a = torch.rand(len(start), generator=generator, device=generator.device).to(start.device, start.dtype)
            step = self.end - start
            points = start + a.reshape(-1, *[1] * (step.ndim - 1)) * step
            values += step * torch.cat([self.gradient_at(points[at], at) for at in rows.split(self.rows)]) / draws
            base = base + self.score_at(start) / draws
        return values, ends - base

    def shown(self, result: tuple[Tensor, Tensor]) -> Attribution:
        values, change = result
        gap = values.flatten(1).sum(1) - change if values.ndim > 1 else values - change
        if self.layer is not None and isinstance(_module(self.model, self.layer), nn.Embedding):
            values = values.sum(-1)
        return Attribution(values, change, gap)


def _module(model: nn.Module, layer: Layer) -> nn.Module:
    return model.get_submodule(layer) if isinstance(layer, str) else layer


def _incomplete(values: Tensor, change: Tensor) -> Tensor:
    gap = values.reshape(len(values), -1).sum(1) - change
    # a change of the size of the arithmetic's own errors cannot be met to 5 %
    floor = 1e3 * torch.finfo(values.dtype).eps * values.reshape(len(values), -1).abs().sum(1)
    return gap.abs() > _TOLERANCE * change.abs() + floor


def _gauss(count: int) -> tuple[Tensor, Tensor]:
    import numpy

    nodes, weights = numpy.polynomial.legendre.leggauss(count)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def _midpoint(count: int) -> tuple[Tensor, Tensor]:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count, torch.full((count,), 1 / count).double()


def _right(count: int) -> tuple[Tensor, Tensor]:
    return torch.arange(1, count + 1, dtype=torch.float64) / count, torch.full((count,), 1 / count).double()


_RULES: dict[str, Callable[[int], tuple[Any, Any]]] = {"gauss": _gauss, "midpoint": _midpoint, "right": _right}
