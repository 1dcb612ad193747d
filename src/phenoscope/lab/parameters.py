"""Parameters that come as text, checked against an experiment's annotations."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from ..core.errors import InputError
from .study import Parameter

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def check_names(given: Mapping[str, Any], known: Mapping[str, Parameter], id: str) -> None:
    """Refuse a name that the experiment does not have, and name the near ones.

    Raises:
        InputError: such a name.
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known) or 'none'}"
            raise InputError(f"{id} has no parameter {name!r}; {hint}")


def parse(text: str, parameter: Parameter) -> Any:
    """A value as its annotation wants it: int, float, bool, str, a literal, an optional one, or a tuple `1,2,3`.

    Raises:
        InputError: the text cannot be read so, or the parameter takes no text.
    """
    try:
        return _value(text.strip(), parameter.annotation)
    except (ValueError, KeyError) as error:
        raise InputError(f"{parameter.name}={text}: {_words(parameter.annotation)} is needed") from error
    except TypeError as error:
        raise InputError(f"{parameter.name} cannot be set by text; use --model or --data, or Python") from error


def _value(text: str, annotation: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is bool:
        return _BOOLEANS[text.lower()]
    if annotation in (int, float, str):
        return annotation(text)
    if origin is Literal:
        return {str(each): each for each in arguments}[text]
    if origin in (Union, types.UnionType):
        if type(None) in arguments and text.lower() == "none":
            return None
        return _first(text, [each for each in arguments if each is not type(None)])
    if origin in (tuple, list) or getattr(origin, "__name__", "") == "Sequence":
        parts = [part for part in text.strip("()[] ").split(",") if part.strip()]
        if origin is tuple and arguments[-1] is not Ellipsis:
            return tuple(_value(part.strip(), each) for part, each in zip(parts, arguments, strict=True))
        return tuple(_value(part.strip(), arguments[0]) for part in parts)
    raise TypeError


def _first(text: str, annotations: list[Any]) -> Any:
    for annotation in annotations:
        try:
            return _value(text, annotation)
        except (ValueError, KeyError, TypeError):
            continue
    raise ValueError


def _words(annotation: Any) -> str:
    if isinstance(annotation, type) and not get_args(annotation):
        return {"int": "a whole number", "float": "a number", "bool": "true or false"}.get(
            annotation.__name__, annotation.__name__
        )
    return str(annotation).replace("typing.", "").replace("NoneType", "None")
