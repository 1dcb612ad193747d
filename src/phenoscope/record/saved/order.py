"""Puts checkpoints into the order of training and numbers them by step."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from ...core.errors import InputError
from .find import Checkpoint
from .formats import natural

_Item = TypeVar("_Item")

_NUMBER = r"(?<!\d)(\d{1,18})(?!\d)"
_WORDS = ("step", "iter", "iteration", "epoch")
_NAMED = [re.compile(word + r"s?[-_=. ]*" + _NUMBER, re.IGNORECASE | re.ASCII) for word in _WORDS]
_BARE = re.compile(_NUMBER, re.ASCII)
_SAY = "say the order with order= (--order): 'name', 'time', or a text file that lists the checkpoints one a line"


def step_in_name(name: str) -> int | None:
    """The number after "step" in a name, else after "iter" or "epoch", else the last number."""
    stem = re.sub(r"\.(pt|pth|ckpt|safetensors)$", "", name)
    for pattern in (*_NAMED, _BARE):
        numbers = pattern.findall(stem)
        if numbers:
            return int(numbers[-1])
    return None


def listed(found: list[Checkpoint], file: Path) -> list[Checkpoint]:
    """The checkpoints that a text file lists, in its order; a path may stand before a name.

    Raises:
        InputError: there is no such file, it is no text, or a line names no checkpoint, or one for the second time.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"order must be 'step', 'name', 'time' or a text file, not {str(file)!r} ({error})") from error
    by_name = {checkpoint.name: checkpoint for checkpoint in found}
    names = [Path(line).name for line in lines]
    for name, line in zip(names, lines, strict=True):
        if name not in by_name:
            raise InputError(f"{file} lists {line!r}, which is no checkpoint of {found[0].path.parent}")
        if names.count(name) > 1:
            raise InputError(f"{file} lists {line!r} twice")
    return [by_name[name] for name in names]


def in_order(items: Sequence[tuple[Checkpoint, int | None, _Item]], order: str) -> list[tuple[int, Checkpoint, _Item]]:
    """(step, checkpoint, item) in the order of training.

    Args:
        items: each checkpoint, the step that its contents name, and whatever goes with it.
        order: "step" sorts by step numbers, from names or else from contents; "name" and "time" (of the last change)
            sort by those; anything else keeps the order. Without step numbers that increase in that order, the steps
            are then 0, 1, 2 ...

    Raises:
        InputError: "step", and a checkpoint has no step number, or two have the same.
    """
    if order == "name":
        items = sorted(items, key=lambda item: natural(item[0].name))
    if order == "time":
        items = sorted(items, key=lambda item: item[0].path.stat().st_mtime_ns)
    numbered = []
    for checkpoint, within, item in items:
        named = step_in_name(checkpoint.name)
        numbered.append((within if named is None else named, checkpoint, item))
    steps = [step for step, _, _ in numbered]
    if order == "step":
        _check(steps, [checkpoint.name for _, checkpoint, _ in numbered])
        numbered = sorted(numbered, key=lambda each: each[0] or 0)
    elif any(a is None or b is None or a >= b for a, b in pairwise(steps)):
        return [(i, checkpoint, item) for i, (_, checkpoint, item) in enumerate(numbered)]
    return [(step or 0, checkpoint, item) for step, checkpoint, item in numbered]


def _check(steps: list[int | None], names: list[str]) -> None:
    without = [name for step, name in zip(steps, names, strict=True) if step is None]
    if without:
        more = f" and {len(without) - 1} others" if len(without) > 1 else ""
        raise InputError(f"{without[0]}{more} name no step, in the file name or inside: {_SAY}")
    for step, count in Counter(steps).most_common(1):
        if count > 1:
            same = [name for each, name in zip(steps, names, strict=True) if each == step]
            raise InputError(f"{', '.join(same[:3])} are all of step {step}: {_SAY}, or move all but one away")
