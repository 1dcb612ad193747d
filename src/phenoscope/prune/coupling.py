"""What has to go together with a filter: channels of other modules, by torch-pruning's dependency graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..core.errors import InputError
from ..record.layers import Layer

Example = Tensor | tuple[Any, ...] | Mapping[str, Any]


class Part(NamedTuple):
    """Channels of one module that go when a filter goes.

    Attributes:
        module: its dotted name, or that of a free parameter.
        side: "out" (its filters), "in" (its input channels), or "both", where they are the same (norms, depthwise
            convolutions).
        indices: the channels.
        roots: for each of them, the filter that takes it along.
        remove: torch-pruning's function that takes channels out of the module.
        obstacle: why it cannot be cut, or empty.
    """

    module: str
    side: str
    indices: list[int]
    roots: list[int]
    remove: Callable[[Any, list[int]], Any]
    obstacle: str


class Coupling:
    """The dependency graph of a network, traced on one example.

    Args:
        model: a copy that may be changed: its parameters come to require gradients, it goes to evaluation mode.
        example: what it is called with: a tensor, a tuple of arguments, or a dictionary of named ones.
        layers: its layers.
    """

    def __init__(self, model: nn.Module, example: Example, layers: Mapping[str, Layer]) -> None:
        import torch_pruning

        self._types = torch_pruning.ops.OPTYPE
        self._modules = dict(model.named_modules())
        self._names: dict[Any, str] = {module: name for name, module in self._modules.items()}
        self._names |= {parameter: name for name, parameter in model.named_parameters()}
        whole = {name for name, layer in layers.items() if not layer.heads and layer.rows is None}
        self._simple = whole & self._modules.keys()
        self._shared = _shared(model)
        self._calls: dict[nn.Module, int] = {}
        outputs: list[Tensor] = []

        def forward(model: nn.Module, example: Example) -> list[Tensor]:
            leaves = [leaf for leaf in tree_leaves(call(model, example)) if isinstance(leaf, Tensor)]
            outputs.extend(leaf for leaf in leaves if leaf.grad_fn is not None)
            return outputs

        def count(module: nn.Module, *_: object) -> None:
            self._calls[module] = self._calls.get(module, 0) + 1

        for parameter in model.parameters():  # the graph is read off autograd's
            parameter.requires_grad_(parameter.is_floating_point())
        hooks = [module.register_forward_pre_hook(count) for module in self._modules.values()]
        self._graph = torch_pruning.DependencyGraph()
        try:
            # what it warns of (operations that it takes for elementwise) is checked on the network that comes out
            with torch.enable_grad(), warnings.catch_warnings(action="ignore"):
                self._graph.build_dependency(model, example, forward_fn=forward, verbose=False)
        except Exception as error:
            raise InputError(f"torch-pruning cannot follow this network: {error!r}") from error
        finally:
            for hook in hooks:
                hook.remove()
        ends = {output.grad_fn for output in outputs}
        self._ends = {node for node in self._graph.module2node.values() if node.grad_fn in ends}

    def module(self, name: str) -> nn.Module | None:
        """The module of that name; `None` for a free parameter."""
        return self._modules.get(name)

    def is_layer(self, name: str) -> bool:
        """Whether this module is a layer whose filters are single output channels."""
        return name in self._simple

    def obstacle(self, name: str) -> str:
        """Why no filter of a layer can be removed, or empty."""
        if name not in self._simple:
            return "it is part of a projection or a module that is not cut filter by filter"
        module = self._modules[name]
        if not isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            return f"torch-pruning does not cut {type(module).__name__}"
        if module not in self._graph.module2node:
            return "the example's way through the network does not show it"
        return self._own_obstacle(name, module)

    def parts(self, name: str, filters: list[int]) -> list[Part]:
        """Everything that goes when these filters of a layer go, the layer's own part first."""
        module = self._modules[name]
        prune = self._graph.get_pruner_of_module(module).prune_out_channels
        try:
            with warnings.catch_warnings(action="ignore"):
                group = self._graph.get_pruning_group(module, prune, filters)
        except Exception as error:
            raise InputError(f"torch-pruning cannot follow the channels of {name!r}: {error!r}") from error
        parts = []
        for item in group.items:
            node, remove = item.dep.target, item.dep.handler
            roots = [r if r is not None else filters[0] for r in item.root_idxs]
            outwards = self._graph.is_out_channel_pruning_fn(remove)
            side = "both" if outwards and self._graph.is_in_channel_pruning_fn(remove) else "out" if outwards else "in"
            place = self._names.get(node.module)  # None: an operation, which has nothing to cut
            why = "" if place is None else self._obstacle_at(place, node, side)
            if node.type == self._types.OUTPUT or (outwards and node in self._ends):
                why = "these are the network's outputs"
            if place is not None or why:
                parts.append(Part(place or "", side, list(item.idxs), roots, remove, why))
        return parts

    def _obstacle_at(self, name: str, node: Any, side: str) -> str:
        """Why channels cannot be taken out of a module, or empty."""
        types, module = self._types, node.module
        if node.type in (types.CONV, types.DEPTHWISE_CONV, types.LINEAR):
            if side != "in" and name not in self._simple:
                return f"they are tied to {name}, which is not cut filter by filter"
            return self._own_obstacle(name, module)
        if node.type in (types.BN, types.IN, types.PRELU):
            return self._own_obstacle(name, module)
        if node.type == types.PARAMETER:
            return "" if module.squeeze().ndim == 1 else f"they meet the parameter {name}, whose channels are not known"
        if node.type in (types.LN, types.GN):
            return f"{name} ({type(module).__name__}) normalizes them together with others"
        return f"they go into {name} ({type(module).__name__}), which is not cut"

    def _own_obstacle(self, name: str, module: nn.Module) -> str:
        if module in self._shared or self._calls.get(module, 0) > 1:
            return f"{name} is used more than once or shares its weight"
        computed = any(key.endswith(("_orig", "_v")) for key in module._parameters)
        if computed or nn.utils.parametrize.is_parametrized(module):
            return f"the weight of {name} is computed by a parametrization"
        if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1:
            groups, depthwise = module.groups, module.groups == module.in_channels == module.out_channels
            if not depthwise and (module.transposed or groups == module.out_channels):
                return f"torch-pruning does not cut a convolution like {name} within its {groups} groups"
        return ""


def call(model: nn.Module, example: Example) -> Any:
    """The network's output for an example."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def _shared(model: nn.Module) -> set[nn.Module]:
    """Modules of which a parameter belongs to another module, too."""
    owners: dict[nn.Parameter, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(parameter, []).append(module)
    return {module for modules in owners.values() if len(modules) > 1 for module in modules}
