"""Make a network by whatever factory the user has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..core.errors import InputError
from ..core.random import child_seeds


def build(
    make_model: Callable[..., nn.Module],
    *,
    shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    generator: torch.Generator | int | None = None,
    **knobs: Any,
) -> nn.Module:
    """Call a network factory with what its signature names, torch's own generators seeded around it.

    So a factory without any argument is as reproducible as one that takes a `generator`. What `functools.partial`
    has bound already stays bound, apart from the knobs. Afterwards torch's generators are as they were.

    Args:
        make_model: a function or class that gives an `nn.Module`.
        shape: of one example, without the batch axis; passed if the factory names it.
        num_classes: passed if the factory names it.
        generator: an integer reaches the factory as it is; from a generator, or from torch's own, a seed is drawn.
        knobs: further arguments, such as `width=64`.

    Raises:
        InputError: the factory does not name one of the knobs, needs an argument that is not there, or gives something
            else than an `nn.Module`.

    Examples:
        >>> import functools
        >>> net = build(functools.partial(nn.Linear, 4), out_features=3, generator=0)
        >>> bool((net.weight == build(lambda: nn.Linear(4, 3), generator=0).weight).all())
        True
    """
    name = _name(make_model)
    seed = int(generator) if isinstance(generator, int) else child_seeds(generator, 1)[0]
    named = inspect.signature(make_model).parameters
    anything = any(each.kind is each.VAR_KEYWORD for each in named.values())
    given: dict[str, Any] = {"generator": seed}
    if shape is not None:
        given["shape"] = tuple(shape)
    if num_classes is not None:
        given["num_classes"] = num_classes
    bound = set(make_model.keywords) if isinstance(make_model, functools.partial) else set()
    given = {key: value for key, value in given.items() if key in named and key not in bound}
    unknown = sorted(set(knobs) - set(named))
    if unknown and not anything:
        raise InputError(f"{name} takes no {unknown[0]!r}; its arguments are {', '.join(map(repr, named)) or 'none'}")
    given |= knobs
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_ONLY)
    missing = [
        key for key, each in named.items() if each.kind in kinds and each.default is each.empty and key not in given
    ]
    if missing:
        raise InputError(f"{name} needs {missing[0]!r}: pass it to build, or bind it with functools.partial")
    used = torch.cuda.is_initialized()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if used else []):
        torch.default_generator.manual_seed(seed)
        if used:
            torch.cuda.manual_seed_all(seed)
        model = make_model(**given)
    if not isinstance(model, nn.Module):
        raise InputError(f"{name} gave a {type(model).__name__}; a network factory gives an nn.Module")
    return model


def _name(make_model: Callable[..., Any]) -> str:
    if isinstance(make_model, functools.partial):
        return _name(make_model.func)
    if isinstance(make_model, nn.Module):
        raise InputError("a network factory is wanted, not a network: pass the function or class that makes it")
    if not callable(make_model):
        raise InputError(f"a network factory must be callable, not a {type(make_model).__name__}")
    return getattr(make_model, "__name__", repr(make_model))
