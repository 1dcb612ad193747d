"""Which weights a network may use: `Masks`, public as `prune.Masks`."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils import prune as torch_prune

from ..core.errors import InputError

_NOT_PRUNED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _NormBase)


class Masks(Mapping[str, Tensor]):
    """A choice of weights, read-only: parameter name -> a boolean tensor of its shape, true where the weight is kept.

    Args:
        masks: parameter name -> a tensor of zeros and ones, or of booleans.

    Raises:
        InputError: a mask with another value than 0 and 1.

    Examples:
        >>> masks = Masks({"weight": torch.tensor([[1, 0], [1, 1]])})
        >>> masks.density, masks.counts
        (0.75, {'weight': 3})
    """

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        self._masks = {name: _boolean(name, mask) for name, mask in masks.items()}

    @classmethod
    def ones(cls, model: nn.Module) -> Masks:
        """The masks that keep every prunable weight of a network."""
        return cls({name: torch.ones_like(weight, dtype=torch.bool) for name, weight in prunable(model).items()})

    @classmethod
    def from_filters(cls, model: nn.Module, filters: Mapping[str, Any]) -> Masks:
        """The masks that remove whole filters and keep every other prunable weight; biases are not masked.

        Args:
            model: the network.
            filters: layer name -> indices of output filters, as `record.redundant` gives.

        Raises:
            InputError: a layer that the network lacks, one without a weight, or an index past its last filter.
        """
        masks = {name: mask.clone() for name, mask in cls.ones(model).items()}
        weights = named_parameters(model)
        known = getattr(filters, "layers", {})
        for name, indices in filters.items():
            parameter = known[name].parameter if name in known else f"{name}.weight"
            if parameter not in weights or weights[parameter].ndim < 2:
                raise InputError(f"the model has no layer {name!r} with a weight of two or more dimensions")
            mask = masks.setdefault(parameter, torch.ones_like(weights[parameter], dtype=torch.bool))
            if name in known and tuple(known[name].shape) != tuple(mask.shape):
                raise InputError(f"the weight of {name!r} has shape {tuple(mask.shape)}, not {known[name].shape}")
            view = known[name].blocks(mask) if name in known else _blocks(model.get_submodule(name), mask)
            at = torch.tensor([int(index) for index in indices], dtype=torch.int64, device=mask.device)
            if len(at) and not 0 <= int(at.min()) <= int(at.max()) < view.shape[0] * view.shape[1]:
                raise InputError(f"{name!r} has {view.shape[0] * view.shape[1]} filters; an index is outside of them")
            view[at // view.shape[1], at % view.shape[1]] = False
        return cls(masks)

    @classmethod
    def from_torch(cls, model: nn.Module) -> Masks:
        """The masks of a network that was pruned with `torch.nn.utils.prune`.

        Raises:
            InputError: nothing in the network is pruned that way.
        """
        found = {name.removesuffix("_mask"): mask for name, mask in model.named_buffers() if name.endswith("_mask")}
        names = named_parameters(model)
        masks = {name: mask for name, mask in found.items() if f"{name}_orig" in names}
        if not masks:
            raise InputError("nothing in this model is pruned with torch.nn.utils.prune")
        return cls(masks)

    def to_torch(self, model: nn.Module) -> nn.Module:
        """A copy of the network, pruned with `torch.nn.utils.prune`, whose `remove` makes that permanent.

        Raises:
            InputError: a parameter that the network lacks or has in another shape.
        """
        model = copy.deepcopy(model)
        for name, (_, mask) in self.within(model).items():
            owner, _, key = name.rpartition(".")
            torch_prune.custom_from_mask(model.get_submodule(owner), key, mask)
        return model

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Masks:
        """Read what `save` wrote.

        Raises:
            InputError: no such file, or one that is not of this kind.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return cls(load_file(path))
        except (OSError, SafetensorError) as error:
            raise InputError(f"{os.fspath(path)} holds no masks: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them to a file (safetensors), which appears whole or not at all."""
        from safetensors.torch import save_file

        path = Path(path)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            save_file({name: mask.cpu().contiguous() for name, mask in self.items()}, beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masks):
            return NotImplemented
        same = set(self) == set(other)
        return same and all(torch.equal(self[name], other[name].to(self[name].device)) for name in self)

    __hash__ = None  # type: ignore[assignment]

    def __and__(self, other: Masks) -> Masks:
        """What both keep; a parameter that one of them does not mention is masked by the other alone."""
        if not isinstance(other, Masks):
            return NotImplemented
        for name in self.keys() & other.keys():
            if self[name].shape != other[name].shape:
                raise InputError(f"masks of {name!r} have shapes {_shape(self[name])} and {_shape(other[name])}")
        both = {name: mask & other[name].to(mask.device) if name in other else mask for name, mask in self.items()}
        return Masks(both | {name: mask for name, mask in other.items() if name not in both})

    @property
    def counts(self) -> dict[str, int]:
        """Parameter name -> how many of its weights are kept."""
        return {name: int(mask.sum()) for name, mask in self.items()}

    @property
    def density(self) -> float:
        """The share of the masked parameters' weights that is kept."""
        return sum(self.counts.values()) / max(1, sum(mask.numel() for mask in self.values()))

    @property
    def collapsed(self) -> tuple[str, ...]:
        """The parameters of which nothing is kept: nothing passes through their layers any more."""
        return tuple(name for name, count in self.counts.items() if count == 0)

    def to(self, device: torch.device | str) -> Masks:
        """The same on a device."""
        return Masks({name: mask.to(device) for name, mask in self.items()})

    def within(self, model: nn.Module) -> dict[str, tuple[nn.Parameter, Tensor]]:
        """Parameter name -> the network's parameter and its mask, on the parameter's device.

        Raises:
            InputError: a parameter that the network lacks or has in another shape.
        """
        parameters = named_parameters(model)
        for name, mask in self.items():
            if name not in parameters:
                raise InputError(f"the model has no parameter {name!r}; it has {', '.join(list(parameters)[:8])} ...")
            if parameters[name].shape != mask.shape:
                raise InputError(f"{name!r} has shape {_shape(parameters[name])}, its mask {_shape(mask)}")
        return {name: (parameters[name], mask.to(parameters[name].device)) for name, mask in self.items()}

    def apply_(self, model: nn.Module) -> nn.Module:
        """Set the weights that are not kept to zero, in place.

        Raises:
            InputError: a parameter that the network lacks or has in another shape.
        """
        for parameter, mask in self.within(model).values():
            _clear(parameter, mask)
        return model

    @contextmanager
    def hold(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Keep a network masked through a training loop of one's own: `with masks.hold(model, optimizer): ...`.

        At once the weights that are not kept become zero, and so does what the optimizer remembers of them. Inside,
        their gradients are zero as soon as they are computed, and they are set to zero after every `optimizer.step()`.

        Raises:
            InputError: a parameter that the network lacks or has in another shape.
        """
        places = list(self.within(model).values())
        for parameter, mask in places:
            _clear(parameter, mask)
            for value in optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == mask.shape:
                    _clear(value, mask)

        def again(*_: object) -> None:
            for parameter, mask in places:
                _clear(parameter, mask)

        handles: list[Any] = [
            parameter.register_hook(lambda gradient, gone=~mask: gradient.masked_fill(gone, 0))
            for parameter, mask in places
            if parameter.requires_grad
        ]
        handles.append(optimizer.register_step_post_hook(again))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __repr__(self) -> str:
        kept = sum(self.counts.values())
        return f"<Masks: {kept} of {sum(mask.numel() for mask in self.values())} weights in {len(self)} parameters>"


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that pruning is about: of two or more dimensions, without embeddings and norms; shared ones once.

    Raises:
        InputError: a network without any.
    """
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if "weight" in key and parameter.ndim >= 2 and not isinstance(module, _NOT_PRUNED):
                found[_clean(f"{prefix}.{key}" if prefix else key)] = parameter
    if not found:
        raise InputError(f"{type(model).__name__} has no weight of two or more dimensions that could be pruned")
    return found


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter by name, shared ones under each of theirs, without the prefix that torch.compile adds."""
    return {_clean(name): parameter for name, parameter in model.named_parameters(remove_duplicate=False)}


def _clean(name: str) -> str:
    return name.replace("_orig_mod.", "")


def _blocks(module: nn.Module, mask: Tensor) -> Tensor:
    """A view of shape (groups, filters of a group, ...)."""
    if isinstance(module, _ConvTransposeNd):  # its weight is (in, out / groups, ...)
        return mask.unflatten(0, (module.groups, -1)).movedim(2, 1)
    return mask[None]


@torch.no_grad()
def _clear(values: Tensor, mask: Tensor) -> None:
    values.masked_fill_(~mask, 0)  # not a product: zero times NaN or infinity is no zero


def _boolean(name: str, mask: Tensor) -> Tensor:
    if not isinstance(mask, Tensor):
        raise InputError(f"the mask of {name!r} must be a tensor, not a {type(mask).__name__}")
    mask = mask.detach()
    if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError(f"the mask of {name!r} has other values than 0 and 1")
    return mask.bool()


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
