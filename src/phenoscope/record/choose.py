"""Choosing layers: by name, by type, by predicate, or a spread of them where there are thousands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
from torch import nn

from ..core.errors import InputError, say
from .layers import Found, clean_name

Choice = str | type[nn.Module] | Callable[[str, nn.Module], bool]
Layers = Choice | Sequence[Choice] | None

MOST = 1000  # layers that are recorded where nobody chose


class Candidate(NamedTuple):
    """A layer that may be chosen, with the module that holds it and the module's name."""

    found: Found
    path: str
    module: nn.Module


def choose(candidates: Sequence[Candidate], model: nn.Module, layers: Layers) -> list[Candidate]:
    """The candidates that any of the choices names, in their own order.

    A pattern (a glob, whose `*` also crosses dots) and a type name layers, or modules and with them all layers inside:
    "encoder.*", "encoder", "*.attn" and nn.TransformerEncoderLayer all work. A predicate is asked for every layer,
    `predicate(name of the layer, the module that holds its weight)`.

    Args:
        candidates: the layers of the model.
        model: for the modules that hold them.
        layers: a pattern, a type, a predicate, or several of them; None is all.

    Raises:
        InputError: a choice that finds nothing, or that is none of these.
    """
    if layers is None or not candidates:
        return list(candidates)
    choices: list[Choice] = [layers] if isinstance(layers, str) or callable(layers) else list(layers)
    if not choices:
        raise InputError("layers= is empty: give patterns, module types or predicates, or leave it out for all layers")
    chosen: set[int] = set()
    for choice in choices:
        places = _matching(candidates, model, choice)
        if not places:
            raise InputError(_nothing(candidates, model, choice))
        chosen.update(places)
    return [candidate for place, candidate in enumerate(candidates) if place in chosen]


def thinned(found: list[Found], most: int) -> list[Found]:
    """At most so many layers: of each kind of name (equal but for its numbers) a part, evenly spread over the depth.

    Kinds with few layers stay whole; those with many (the experts of a mixture) share what is left.
    """
    if len(found) <= most:
        return found
    kinds: dict[str, list[int]] = {}
    for place, each in enumerate(found):
        kinds.setdefault(re.sub(r"\d+", "#", each.layer.name), []).append(place)
    left, kept = most, []
    for number, places in enumerate(sorted(kinds.values(), key=len)):
        share = min(len(places), left // (len(kinds) - number))
        kept += [places[i] for i in np.linspace(0, len(places) - 1, share).round().astype(int)]
        left -= share
    say(
        f"the model has {len(found)} layers, of which {len(kept)} are recorded, spread over its depth: "
        "choose with layers=, or record all with layers='*'"
    )
    return [found[place] for place in sorted(kept)]


def _matching(candidates: Sequence[Candidate], model: nn.Module, choice: Choice) -> list[int]:
    """Places of the candidates that a choice names."""
    if isinstance(choice, str):
        own = [fnmatchcase(c.found.layer.name, choice) or fnmatchcase(c.path, choice) for c in candidates]
        holders = [path for path, _ in _holders(model) if fnmatchcase(path, choice)]
    elif isinstance(choice, type):
        if not issubclass(choice, nn.Module):
            raise InputError(f"layers= takes types of modules, such as nn.Conv2d, not {choice.__name__}")
        own = [isinstance(c.module, choice) for c in candidates]
        holders = [path for path, module in _holders(model) if isinstance(module, choice)]
    elif callable(choice):
        own, holders = [bool(choice(c.found.layer.name, c.module)) for c in candidates], []
    else:
        raise InputError(f"layers= takes patterns, module types and predicates, not {choice!r}")
    inside = tuple(f"{path}." for path in holders)
    return [place for place, c in enumerate(candidates) if own[place] or c.path.startswith(inside)]


def _holders(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((clean_name(path), module) for path, module in model.named_modules() if path)


def _nothing(candidates: Sequence[Candidate], model: nn.Module, choice: Choice) -> str:
    """Why a choice is refused, with what would have been near."""
    names = [c.found.layer.name for c in candidates]
    if isinstance(choice, str):
        bare = choice.strip("*?.")
        holding = {path: None for path, _ in _holders(model) if any(name.startswith(f"{path}.") for name in names)}
        near = get_close_matches(bare, [*names, *holding], n=3, cutoff=0.6)
        hint = f"near names are {', '.join(near)}" if near else f"layers are {', '.join(names[:5])}{_more(names)}"
        return f"layers= names {choice!r}, which matches no layer; {hint}"
    if isinstance(choice, type):
        kinds = list(dict.fromkeys(c.found.layer.kind for c in candidates))
        return f"layers= names {choice.__name__}, of which this model has none; its layers are {', '.join(kinds)}"
    name = getattr(choice, "__name__", repr(choice))
    return f"layers= has a predicate ({name}) that accepts none of the {len(names)} layers: {names[0]}{_more(names, 1)}"


def _more(names: Sequence[str], shown: int = 5) -> str:
    return " ..." if len(names) > shown else ""
