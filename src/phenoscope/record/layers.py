"""Which weights of a network are filters, and how they lie in their tensors.

Every kind of layer is brought to one form: a view of its weight with the axes (group, filter, channel, entries...).
The kinds are in `kinds.py`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from ..core.errors import InputError

if TYPE_CHECKING:
    from .choose import Layers

# What torch's own wrappers put into module names: torch.compile, activation checkpointing, FSDP1.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")


@dataclasses.dataclass(frozen=True)
class Layer:
    """How the filters of one layer lie in its weight.

    Attributes:
        name: the module's dotted name; a part of a fused projection adds `.q`, `.k` or `.v`.
        parameter: the weight's name in the state dict.
        kind: the module's class.
        shape: the weight's shape.
        filters, channels: axes of the weight that count filters and channels.
        groups: how many groups the channel axis is cut into, where that axis comes first (transposed convolution).
        rows: which part `[start, stop)` of the filter axis belongs to this layer; `None` is all.
        heads: 0, or how many filters of equally many rows that part makes.
        interleaved: `(parts, part)` where every head holds the rows of q, k and v together.
        trainable: whether any gradient was asked for when recording began.
        bias: the bias's name in the state dict, if there is one.
        bias_rows: which part of the bias belongs to this layer, where that is not `rows`.
        settings: stride, padding, dilation and groups of a convolution.
        expert: which expert's, where one weight of three axes holds those of all experts of a mixture.
    """

    name: str
    parameter: str
    kind: str
    shape: tuple[int, ...]
    filters: int = 0
    channels: int = 1
    groups: int = 1
    rows: tuple[int, int] | None = None
    heads: int = 0
    interleaved: tuple[int, int] | None = None
    trainable: bool = True
    bias: str | None = None
    bias_rows: tuple[int, int] | None = None
    settings: Mapping[str, Any] | None = None
    expert: int | None = None

    def blocks(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight as a view of shape (groups, filters of a group, channels, *entries)."""
        view = weight.movedim((self.filters, self.channels), (0, 1))
        if self.expert is not None:
            view = view[..., self.expert]
        view = self._rows(view, self.rows)
        if self.groups > 1 and self.channels == 0:
            return view.unflatten(1, (self.groups, -1)).movedim(1, 0)
        return view[None]

    def rows_of(self, bias: torch.Tensor) -> torch.Tensor:
        """The bias as a view of shape (filters, entries of a filter)."""
        rows = self.bias_rows or self.rows
        if self.expert is not None:
            bias = bias[self.expert]
        return self._rows(bias[:, None], rows).flatten(1)

    def _rows(self, view: torch.Tensor, rows: tuple[int, int] | None) -> torch.Tensor:
        if rows is not None:
            view = view[slice(*rows)]
        if self.interleaved is not None:
            parts, part = self.interleaved
            return view.unflatten(0, (self.heads, parts, -1))[:, part].movedim(1, -1)
        return view.unflatten(0, (self.heads, -1)).movedim(1, -1) if self.heads else view

    def __len__(self) -> int:
        return self._form[0] * self._form[1]

    @property
    def entries(self) -> tuple[int, int]:
        """Channels of a filter (C), entries of a channel (W H)."""
        return self._form[2], self._form[3]

    @cached_property
    def _form(self) -> tuple[int, int, int, int]:
        groups, filters, channels, *rest = self.blocks(torch.empty(self.shape, device="meta")).shape
        size = 1
        for length in rest:
            size *= length
        return groups, filters, channels, size

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Layer:
        known = {field.name for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items() if k in known}
        return cls(**values)


def clean_name(name: str) -> str:
    """A module or parameter name without what torch.compile, checkpointing and FSDP put into it."""
    return _WRAPPERS.sub("", name)


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside torch.compile, DataParallel, DistributedDataParallel and Lightning's Fabric."""
    while True:
        wrapped = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
        if wrapped or type(model).__name__ == "_FabricModule":  # by name: Lightning may not be installed
            model = model.module  # type: ignore[assignment]
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


class Found(NamedTuple):
    """A layer in a live network: its weight, and the place where the network keeps it."""

    layer: Layer
    weight: torch.Tensor
    owner: nn.Module
    key: str

    def current(self) -> torch.Tensor:
        """The weight that stands in that place now."""
        return self.owner._parameters.get(self.key) if self.key in self.owner._parameters else self.weight  # type: ignore[return-value]


def find_layers(
    model: nn.Module,
    *,
    heads: Mapping[str, int] | None = None,
    embeddings: bool = False,
    layers: Layers = None,
    most: int | None = None,
) -> tuple[list[Found], list[str]]:
    """The layers of a network that have filters, each with its weight, in the order of its modules.

    A weight that several modules share comes once, under the first name that was chosen. Weights that a lazy module
    has not made yet are named in the second list.

    Args:
        heads: how many heads the projections that match a pattern have: {pattern: n}; overrules what modules say.
        embeddings: whether the rows of an `nn.Embedding` are filters, too.
        layers: which layers: a pattern of names, a module type, a predicate (name, module), or several of them (see
            `choose.choose`); all by default.
        most: how many layers at most where `layers` does not choose, evenly spread; all by default.

    Raises:
        InputError: a pattern of `heads` that matches nothing, or a number that does not divide the rows; a choice of
            `layers` that finds nothing.
    """
    from .choose import Candidate, choose, thinned
    from .kinds import Context, kind_of

    model = unwrap(model)
    candidates: list[Candidate] = []
    used: set[str] = set()
    for raw, module in model.named_modules():
        name = clean_name(raw)
        describe = kind_of(module, embeddings)
        if describe is not None:
            context = Context(model, raw, name, module, heads or {}, used)
            candidates += [Candidate(each, name, module) for each in describe(context)]
    unused = set(heads or {}) - used
    if unused:
        raise InputError(f"heads= names {sorted(unused)[0]!r}, which matches no projection of this model")
    found: list[Found] = []
    pending: list[str] = []
    first: dict[int, nn.Module] = {}
    for each, _, module in choose(candidates, model, layers):
        weight = each.weight
        if nn.parameter.is_lazy(weight):
            pending.append(each.layer.name)
        elif weight.is_floating_point() and weight.numel() and first.setdefault(id(weight), module) is module:
            found.append(each)
    return (thinned(found, most) if layers is None and most is not None else found), pending
