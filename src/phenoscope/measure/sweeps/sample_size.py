"""How well something does by the number of samples it is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.random import child_seeds
from ...data.batches import batches

if TYPE_CHECKING:
    import xarray

Pair = tuple[Tensor, Tensor]


def sample_size_curve(
    fits: Callable[..., Any] | Mapping[str, Callable[..., Any]],
    sampler: Callable[[int, int], Pair],
    ns: Sequence[int],
    *,
    scores: Callable[[Any, Pair], Any] | Mapping[str, Callable[[Any, Pair], Any]],
    repeats: int = 5,
    generator: torch.Generator | int | None = None,
) -> xarray.Dataset:
    """Train on more and more samples and score what comes out.

    The sweep of sample-wise double and triple descent (Nakkiran et al., ICLR 2020, section 7; d'Ascoli, Sagun and
    Biroli, NeurIPS 2020, section 1) and of the gap between two ways to train (Chen, Min, Zhang and Karbasi, ICML 2020).
    A repetition draws its samples once: fewer samples are the first of the more, and every way to train gets the same
    ones and the same seed, so that differences are paired. `stats.turning_points` finds the peaks.

    Args:
        fits: `fit(data, *, generator)` trains on a pair `(x, y)` and gives anything that can be scored, such as a
            network; or several of them by name.
        sampler: `sampler(n, generator) -> (x, y)` draws n samples.
        ns: numbers of samples.
        scores: `score(fitted, data)` gives a number for what a fit gave and the samples it was given: an error on test
            data, or on the samples themselves. Or several of them by name.
        repeats: how often everything is drawn again.
        generator: what samples and seeds are drawn from.

    Returns:
        `score`, or one variable for each name, over `n` and `repeat`, and over `fit` where several have names.

    Raises:
        InputError: no fits, scores or numbers of samples, an n under 1, no repetitions, samples that `data.batches`
            refuses or too few of them, or a score that is no number.

    Examples:
        >>> def noise(n, generator):
        ...     return torch.zeros(n, 1), torch.randn(n, generator=torch.Generator().manual_seed(generator))
        >>> found = sample_size_curve(
        ...     lambda data, *, generator: data[1].mean(), noise, (1, 100),
        ...     scores=lambda mean, data: mean**2, repeats=50, generator=0,
        ... ).score.mean("repeat")
        >>> bool(20 < found.sel(n=1) / found.sel(n=100) < 500)
        True
    """
    import xarray

    ways = {"": fits} if callable(fits) else dict(fits)
    asked = {"score": scores} if callable(scores) else dict(scores)
    grid = tuple(int(n) for n in ns)
    if not ways or not asked or not grid or min(grid) < 1 or repeats < 1:
        raise InputError(f"at least one fit, score, repetition and n, and no n under 1, are needed; got ns={grid}")
    shape = (len(ways), len(grid), repeats)
    found = {name: torch.empty(shape, dtype=torch.float64) for name in asked}
    for repeat, seed in enumerate(child_seeds(generator, repeats)):
        sample_seed, fit_seed = child_seeds(seed, 2)
        x, y = sampler(max(grid), sample_seed)
        batches((x, y), 1)
        if len(x) < max(grid):
            raise InputError(f"the sampler gave {len(x)} samples instead of {max(grid)}")
        for place, n in enumerate(grid):
            data = x[:n], y[:n]
            for way, fit in enumerate(ways.values()):
                fitted = fit(data, generator=fit_seed)
                for name, score in asked.items():
                    found[name][way, place, repeat] = _number(name, score(fitted, data))
    dims = ("fit", "n", "repeat")
    coordinates = {"fit": list(ways), "n": list(grid), "repeat": range(repeats)}
    out = xarray.Dataset({name: (dims, values.numpy()) for name, values in found.items()}, coordinates)
    return out.squeeze("fit", drop=True) if callable(fits) else out


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"score {name!r} gave a {type(value).__name__}; a score is one number") from error
