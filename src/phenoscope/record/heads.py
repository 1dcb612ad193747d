"""Which linear layers are attention projections, and into how many heads they split."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from ..core.errors import InputError

# Names under which networks keep their projections (torch, transformers, timm, the papers' own code).
_QUERY = {"q", "query", "q_proj", "q_lin", "to_q", "wq", "query_proj", "q_attn"}
_KEY_VALUE = {"k", "v", "key", "value", "k_proj", "v_proj", "k_lin", "v_lin", "to_k", "to_v", "wk", "wv"}
_KEY_VALUE |= {"key_proj", "value_proj"}
_FUSED = {"c_attn", "qkv", "qkv_proj", "Wqkv", "in_proj", "to_qkv"}
_FUSED_BY_HEAD = {"query_key_value"}

_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
_KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads")


class Part(NamedTuple):
    """A run of rows of a projection: its letter, its rows, its heads, and how they lie."""

    letter: str
    rows: tuple[int, int] | None
    heads: int
    interleaved: tuple[int, int] | None = None


_WHOLE = [Part("", None, 0)]


def head_count(module: Any, names: tuple[str, ...] = _HEADS) -> int | None:
    """The number of heads that a module says it has, in its own attributes or in its `config`."""
    for holder in (module, getattr(module, "config", None)):
        for name in names:
            count = getattr(holder, name, None)
            if isinstance(count, int) and count > 0:
                return count
    return None


def projections(model: nn.Module, path: str, out: int, inputs: int, explicit: int | None) -> list[Part]:
    """The parts of a linear layer, by head where it is an attention projection; else the whole, unsplit.

    Args:
        path: the layer's place in `model`.
        out, inputs: output and input units.
        explicit: a number of heads that the user gave; it must divide the rows.
    """
    parents, last = _parents(model, path)
    known = last in _QUERY | _KEY_VALUE | _FUSED | _FUSED_BY_HEAD
    heads = explicit or (_nearest(parents, _HEADS) if known else None)
    if not heads:
        return _WHOLE
    shared = (_nearest(parents, _KEY_VALUE_HEADS) if known and explicit is None else None) or heads
    if last in _FUSED_BY_HEAD and out == 3 * inputs and out % (3 * heads) == 0:
        return [Part(letter, None, heads, (3, i)) for i, letter in enumerate("qkv")]
    if last in _FUSED:
        parts = _fused(out, inputs, heads, shared)
        if parts:
            return parts
    count = shared if last in _KEY_VALUE else heads
    if out % count:
        if explicit:
            raise InputError(f"heads= asks for {explicit} heads in {path!r}, whose {out} rows do not divide by it")
        return _WHOLE
    return [Part("", None, count)]


def _fused(out: int, inputs: int, heads: int, shared: int) -> list[Part]:
    """q, k and v one after the other, k and v with fewer rows where heads share them; nothing if that does not fit."""
    if out == 2 * inputs and shared == heads:  # GPT-2's cross attention keeps q elsewhere
        letters, counts = "kv", [heads, heads]
    else:
        letters, counts = "qkv", [heads, shared, shared]
    size, rest = divmod(out, sum(counts))
    if rest:
        return []
    parts, start = [], 0
    for letter, count in zip(letters, counts, strict=True):
        parts.append(Part(letter, (start, start + count * size), count))
        start += count * size
    return parts


def _parents(model: nn.Module, path: str) -> tuple[list[nn.Module], str]:
    """The modules above a place, nearest first, and the last word of its name."""
    *above, last = path.split(".")
    parents, module = [model], model
    for word in above:
        module = getattr(module, word)
        parents.append(module)
    return parents[::-1], last


def _nearest(parents: list[nn.Module], names: tuple[str, ...]) -> int | None:
    """The count that the nearest module which knows it gives."""
    return next((count for module in parents if (count := head_count(module, names))), None)
