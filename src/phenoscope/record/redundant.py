"""Which filters never learned: `redundant` and `least_evolved`, and `Filters`, the choice of filters that they make."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from ..core.errors import InputError
from .layers import Layer, clean_name, find_layers, unwrap

if TYPE_CHECKING:
    from .run import Run


class Filters(Mapping[str, np.ndarray]):
    """A choice of filters, read-only: layer name -> their indices, sorted, as int64.

    A layer of which nothing is chosen is present with no indices, so that tables can show it.

    Args:
        indices: layer name -> indices, in any order.
        layers: how the filters lie in the weights, where that is known from a recorded run. Without it the layers are
            looked up in the network that the choice is used on.

    Raises:
        InputError: an index that is negative, given twice, or not an integer.
    """

    def __init__(self, indices: Mapping[str, ArrayLike], layers: Mapping[str, Layer] | None = None) -> None:
        self._indices = {name: _sorted(name, values) for name, values in indices.items()}
        if layers is None and isinstance(indices, Filters):
            layers = indices.layers
        self.layers: dict[str, Layer] = (
            {name: layers[name] for name in self._indices if name in layers} if layers else {}
        )

    def __getitem__(self, name: str) -> np.ndarray:
        return self._indices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping) or set(self) != set(other):
            return NotImplemented if not isinstance(other, Mapping) else False
        return all(np.array_equal(self[name], other[name]) for name in self)

    __hash__ = None  # type: ignore[assignment]

    @property
    def counts(self) -> dict[str, int]:
        """Layer name -> how many of its filters are chosen."""
        return {name: len(values) for name, values in self._indices.items()}

    def only(self, names: Iterable[str]) -> Filters:
        """The same choice in these layers alone.

        Raises:
            InputError: a name that is not among the layers.
        """
        names = list(names)
        for name in names:
            if name not in self:
                raise InputError(f"no layer {name!r} among {_listed(self)}")
        return Filters({name: self[name] for name in self if name in names}, self.layers)

    def __repr__(self) -> str:
        counts = self.counts
        return f"<Filters: {sum(counts.values())} in {sum(map(bool, counts.values()))} of {len(self)} layers>"


def redundant(run: Run, *, epsilon: float = 0.05) -> Filters:
    """The filters that stayed idle: mean over the recorded steps of the idle ratio at least `1 - epsilon`.

    After Hu, Wang, Li and Huang, "How Functions Evolve in Deep Convolutional Neural Network" (VCIP 2018), section IV.E.
    Whether a filter is idle depends on tau. Its default, the initial learning rate, means something for optimizers
    like Adam over several steps; a layer in which over half of the filters come out redundant is warned about.

    Args:
        run: a recorded run.
        epsilon: how far from 1 the mean idle ratio may be.

    Returns:
        The filters of every layer that was trainable; a filter without any finite record is never among them.

    Raises:
        InputError: `epsilon` outside [0, 1).
    """
    if not 0 <= epsilon < 1:
        raise InputError(f"epsilon must be at least 0 and below 1, not {epsilon!r}")
    # a mean of ratios is off by some rounding errors; without the slack 0.95 may fail to reach 1 - 0.05
    limit = 1 - epsilon - 1e-12
    names = [name for name, layer in run.layers.items() if layer.trainable]
    chosen = {name: np.flatnonzero(run.average(name)["idle"].values >= limit) for name in names}
    many = [name for name in names if len(chosen[name]) > len(run.layers[name]) / 2]
    if many:
        places = ", ".join(f"{name} (tau {run.thresholds[name]:.3g})" for name in many[:5])
        more = f" and {len(many) - 5} more" if len(many) > 5 else ""
        warnings.warn(
            f"over half of the filters come out redundant in {places}{more}: tau is probably too large for what this "
            f"optimizer moves a weight by in the {run.metadata.get('every', '?')} steps between two records; "
            "record again with a smaller threshold=",
            stacklevel=2,
        )
    return Filters(chosen, run.layers)


def least_evolved(run: Run, share: float) -> Filters:
    """The filters that moved least: in each layer, the share with the lowest time-mean distance.

    Args:
        run: a recorded run.
        share: which share q of a layer's n filters; round(q n) are taken, of equal ones those that come first.

    Returns:
        The filters of every layer that was trainable; a filter without any finite record is never among them.

    Raises:
        InputError: `share` outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise InputError(f"share must lie between 0 and 1, not {share!r}")
    chosen = {}
    for name, layer in run.layers.items():
        if layer.trainable:
            distance = run.average(name)["distance"].values
            order = np.argsort(distance, kind="stable")  # NaN goes last
            chosen[name] = order[np.isfinite(distance[order])][: round(share * len(layer))]
    return Filters(chosen, run.layers)


def within(model: nn.Module, filters: Mapping[str, Any]) -> Filters:
    """The choice of filters as one of this network: checked, with its layers, in network order.

    Raises:
        InputError: a layer that the network lacks or has in another shape, or an index past its last filter.
    """
    filters = Filters(filters)
    known = {found.layer.name: found.layer for found in find_layers(model, embeddings=True)[0]} | filters.layers
    shapes = {clean_name(name): tuple(p.shape) for name, p in unwrap(model).named_parameters(remove_duplicate=False)}
    for name, indices in filters.items():
        if name not in known or known[name].parameter not in shapes:
            raise InputError(f"the model has no layer {name!r}; its layers are {_listed(known)}")
        layer = known[name]
        if shapes[layer.parameter] != tuple(layer.shape):
            raise InputError(
                f"the weight of {name!r} has shape {shapes[layer.parameter]}, but {tuple(layer.shape)} in the run "
                "that the filters come from; use the network that was recorded"
            )
        if len(indices) and indices[-1] >= len(layer):
            raise InputError(f"{name!r} has {len(layer)} filters; there is no filter {indices[-1]}")
    return Filters({name: filters[name] for name in known if name in filters}, known)


def _sorted(name: str, values: ArrayLike) -> np.ndarray:
    given = np.asarray(values)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise InputError(
            f"the filters of {name!r} must be a list of integers, not {given.dtype} of shape {given.shape}"
        )
    indices = np.sort(given.astype(np.int64))
    if indices.size and indices[0] < 0:
        raise InputError(f"the filters of {name!r} include {indices[0]}; indices count from 0")
    twice = indices[1:][indices[1:] == indices[:-1]]
    if twice.size:
        raise InputError(f"the filters of {name!r} include {twice[0]} twice")
    indices.flags.writeable = False
    return indices


def _listed(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    names = list(names)
    return ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
