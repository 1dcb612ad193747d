"""How to run a study on a network and data of one's own."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from importlib.resources import files

from ..catalogue import Entry, is_ready
from .figure_box import note
from .theme import text

_IMPORTS = {"model": ["from math import prod", "from torch import nn"], "dataset": ["import torch"]}
_PROGRAMS = {
    "model": """
def build(shape, num_classes):  # shape: of one input, without the batch axis
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), 256), nn.ReLU(), nn.Linear(256, num_classes))
""",
    "dataset": """
def load():
    return torch.load("inputs.pt"), torch.load("labels.pt")  # (N, ...) and (N,)
""",
}
_OPTIONS = {"model": "--model mine:build", "dataset": "--data mine:load"}


def knobs(found: Entry) -> tuple[str, ...]:
    """The parameters of an entry's experiment, read from its source without running it; none without a study."""
    if not is_ready(found):
        return ()
    file = files("phenoscope") / "studies" / found.section / f"{found.id.replace('-', '_')}.py"
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return ()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(
            isinstance(mark, ast.Attribute) and mark.attr == "experiment" for mark in node.decorator_list
        ):
            return tuple(argument.arg for argument in node.args.kwonlyargs)
    return ()


def snippet(found: Entry) -> str:
    """What to type to run the study, as it is and on one's own network and data."""
    if not is_ready(found):
        return note(
            "the experiment is specified and its claims are registered, but it is not built yet: there is nothing to "
            "run"
        )
    takes = [name for name in ("model", "dataset") if name in knobs(found)]
    plain = _code(f"phenoscope run {found.id}")
    if not takes:
        return plain + note(
            f"this experiment makes its own networks and data; `phenoscope show {found.id}` lists the parameters that "
            "can be set"
        )
    options = "".join(f" {_OPTIONS[name]}" for name in takes)
    what = " and ".join({"model": "a network", "dataset": "data"}[name] for name in takes)
    return (
        f"{plain}<p>On {what} of your own, from a file <code>mine.py</code>:</p>\n"
        + _code(_program(takes))
        + _code(f"phenoscope run {found.id}{options}")
    )


def _program(takes: Sequence[str]) -> str:
    imports = sorted((line for name in takes for line in _IMPORTS[name]), key=_by_module)
    return "\n\n".join(["\n".join(imports), *(_PROGRAMS[name].strip() for name in takes)])


def _by_module(line: str) -> tuple[str, bool]:
    return line.split()[1], line.startswith("from")


def _code(content: str) -> str:
    return f"<pre tabindex='0'><code>{text(content.strip())}</code></pre>\n"
