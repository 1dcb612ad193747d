"""Learning-rate schedules: plain functions from the step, counted from 0, to a factor on the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..core.errors import InputError

Schedule = Callable[[int], float]


def cosine(steps: int, *, final: float = 0.0) -> Schedule:
    """Half a cosine from 1 to `final` (Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts).

    `factor(t) = final + (1 - final) (1 + cos(pi t / steps)) / 2`; from step `steps` on it stays at `final`.

    Examples:
        >>> cosine(100)(0), round(cosine(100)(50), 12), cosine(100)(100)
        (1.0, 0.5, 0.0)
    """
    _check_steps(steps)
    return lambda step: final + (1 - final) * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2


def linear_decay(steps: int, *, final: float = 0.0) -> Schedule:
    """A straight line from 1 at step 0 to `final` at step `steps`, where it stays.

    Examples:
        >>> [linear_decay(4)(step) for step in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    _check_steps(steps)
    return lambda step: 1 - (1 - final) * min(step, steps) / steps


def step_decay(steps: int, *, at: Sequence[float] = (0.5, 0.75), factor: float = 0.1) -> Schedule:
    """The learning rate times `factor` at each of the given shares of the training.

    Args:
        steps: how long the training is.
        at: when to decay, as shares of `steps`.
        factor: by how much.

    Examples:
        >>> [step_decay(8)(step) for step in (3, 4)], round(step_decay(8)(6), 12)
        ([1.0, 0.1], 0.01)
    """
    _check_steps(steps)
    if not all(0 <= share <= 1 for share in at):
        raise InputError(f"at holds shares of the training, from 0 to 1, not {tuple(at)}")
    turns = [round(share * steps) for share in at]
    return lambda step: float(factor ** sum(step >= turn for turn in turns))


def warmup(steps: int, after: Schedule | None = None) -> Schedule:
    """A straight line up over the first steps: `factor(t) = (t + 1) / steps` for `t < steps`.

    Args:
        steps: how long to warm up.
        after: the schedule whose factor comes on top, itself counted from step 0; `None` is constant.

    Examples:
        >>> [warmup(4)(step) for step in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    _check_steps(steps)
    return lambda step: min(1.0, (step + 1) / steps) * (1.0 if after is None else after(step))


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise InputError(f"a schedule needs at least 1 step, not {steps}")
