"""Labels that a known rule gives, and noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import InputError
from ...core.random import seeded

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "abs": torch.abs,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """The rule f(x) = phi(<w, x>), or its mean over the patches of an input, and noise on what it says.

    Attributes:
        weight: (d,), w.
        activation: phi: "relu", "tanh", "erf", "abs", or `None` for a linear rule.
        noise: standard deviation of what is added to f.
    """

    weight: Tensor
    activation: str | None
    noise: float

    def __call__(self, x: Tensor) -> Tensor:
        """What the rule says, without noise, of inputs (N, d) or inputs of several patches (N, k, d): (N,)."""
        if x.ndim not in (2, 3) or x.shape[-1] != len(self.weight):
            raise InputError(f"inputs must end in {len(self.weight)} dimensions, not {tuple(x.shape)}")
        values = x @ self.weight.to(x)
        if self.activation is not None:
            values = _ACTIVATIONS[self.activation](values)
        return values if x.ndim == 2 else values.mean(1)

    def label(self, x: Tensor, *, generator: torch.Generator | int | None = None) -> Tensor:
        """What the rule says with noise, (N,)."""
        generator = seeded(generator)
        noise = torch.randn(len(x), dtype=x.dtype, generator=generator, device=generator.device)
        return self(x) + self.noise * noise.to(x.device)

    def sample(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor]:
        """Inputs from N(0, I), (n, d), and their noisy labels (n,)."""
        if n < 1:
            raise InputError(f"n must be at least 1, not {n}")
        generator = seeded(generator)
        shape = (n, len(self.weight))
        x = torch.randn(shape, dtype=self.weight.dtype, generator=generator, device=generator.device).cpu()
        return x, self.label(x, generator=generator)


def teacher(
    d: int,
    *,
    norm: float = 1.0,
    activation: str | None = None,
    noise: float = 0.0,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | int | None = None,
) -> Teacher:
    """A rule of random direction, from which any number of labelled inputs can be drawn.

    Args:
        d: dimensions of an input.
        norm: |w|.
        activation: "relu", "tanh", "erf", "abs", or `None` for a linear rule.
        noise: standard deviation of the noise on labels.
        dtype: of weights, inputs and labels.
        generator: what draws the direction; `Teacher.sample` takes its own.

    Raises:
        InputError: a number out of range, or another activation.

    Examples:
        >>> rule = teacher(10, noise=0.5, generator=0)
        >>> x, y = rule.sample(1000, generator=1)
        >>> round((y - rule(x)).std().item(), 1)
        0.5
    """
    if d < 1 or norm < 0 or noise < 0:
        raise InputError(f"d must be at least 1, norm and noise at least 0, not {d}, {norm} and {noise}")
    if activation is not None and activation not in _ACTIVATIONS:
        raise InputError(f"activation must be one of {', '.join(_ACTIVATIONS)} or None, not {activation!r}")
    generator = seeded(generator)
    direction = torch.randn(d, dtype=torch.float64, generator=generator, device=generator.device).cpu()
    return Teacher((norm * direction / direction.norm()).to(dtype), activation, noise)
