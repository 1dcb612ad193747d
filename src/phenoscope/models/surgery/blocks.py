"""Cut a network in two, or into its blocks."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal

from torch import fx, nn

from ...core.errors import InputError


def split_at(
    model: nn.Module, layer: nn.Module | str, *, side: Literal["after", "before"] = "after"
) -> tuple[nn.Module, nn.Module]:
    """Cut a network in two at a layer: `upper(lower(x))` is what the network gives.

    The halves share the network's own layers, so they change with it. Nested `nn.Sequential`s are cut as they stand;
    any other network is traced by `torch.fx`, which needs a forward pass without branches that depend on the data.

    Args:
        model: a network.
        layer: one of its modules, or its dotted name; it must be used exactly once.
        side: whether the layer is the last of the lower half, or the first of the upper.

    Returns:
        The lower and the upper half; the half beyond the end of a network is an empty `nn.Sequential`.

    Raises:
        InputError: no such layer, a network that cannot be traced, or one with a way round the cut.

    Examples:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> lower, upper = split_at(net, "1")
        >>> len(lower), len(upper)
        (2, 1)
    """
    if side not in ("after", "before"):
        raise InputError(f'side must be "after" or "before", not {side!r}')
    name = _name(model, layer)
    if name == "":
        return (model, nn.Sequential()) if side == "after" else (nn.Sequential(), model)
    halves = _cut_chain(model, name.split("."), side)
    return _cut_graph(model, name, side) if halves is None else halves


def blocks(model: nn.Module) -> list[nn.Sequential]:
    """The network as a list of blocks, each one layer with weights and all that follows it up to the next.

    A layer with weights is a leaf with a parameter of two or more dimensions. A residual unit, or any other module that
    is no `nn.Sequential` and holds modules, is taken whole. What stands before the first such layer belongs to its
    block. Run one after the other, the blocks do what the network does; they share its layers.

    Raises:
        InputError: a network that is no `nn.Sequential`, or has no layer with weights.

    Examples:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> [list(block._modules) for block in blocks(net)]
        [['0', '1', '2'], ['3']]
    """
    if not isinstance(model, nn.Sequential):
        raise InputError(f"{type(model).__name__} is no nn.Sequential, so it has no order of blocks")
    found: list[OrderedDict[str, nn.Module]] = []
    before: OrderedDict[str, nn.Module] = OrderedDict()
    for name, module in _chain(model):
        if any(parameter.ndim > 1 for parameter in module.parameters()):
            found.append(OrderedDict() if found else before)
        (found[-1] if found else before)[name.replace(".", "_")] = module
    if not found:
        raise InputError("the network has no layer with weights")
    return [nn.Sequential(block) for block in found]


def _chain(model: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_children():
        if isinstance(module, nn.Sequential):
            yield from _chain(module, f"{prefix}{name}.")
        else:
            yield prefix + name, module


def _name(model: nn.Module, layer: nn.Module | str) -> str:
    names = [name for name, module in model.named_modules() if module is layer or name == layer]
    if not names:
        listed = ", ".join(name for name, _ in model.named_modules() if name)
        raise InputError(f"the network has no layer {layer!r}; its layers are {listed[:300]}")
    return names[0]


def _cut_chain(model: nn.Module, path: list[str], side: str) -> tuple[nn.Module, nn.Module] | None:
    """The halves of nested sequentials; `None` where the way to the layer leads through something else."""
    if not path:
        return (model, nn.Sequential()) if side == "after" else (nn.Sequential(), model)
    if type(model) is not nn.Sequential:
        return None
    names = list(model._modules)
    inner = _cut_chain(model[names.index(path[0])], path[1:], side)
    if inner is None:
        return None
    lower = OrderedDict((name, model._modules[name]) for name in names[: names.index(path[0])])
    upper = OrderedDict((name, model._modules[name]) for name in names[names.index(path[0]) + 1 :])
    if not (isinstance(inner[0], nn.Sequential) and not len(inner[0])):
        lower[path[0]] = inner[0]
    if not (isinstance(inner[1], nn.Sequential) and not len(inner[1])):
        upper = OrderedDict([(path[0], inner[1]), *upper.items()])
    return nn.Sequential(lower), nn.Sequential(upper)


class _Tracer(fx.Tracer):
    """Does not look inside the layer that is cut at."""

    def __init__(self, leaf: str) -> None:
        super().__init__()
        self.leaf = leaf

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name == self.leaf or super().is_leaf_module(m, module_qualified_name)


def _cut_graph(model: nn.Module, name: str, side: str) -> tuple[nn.Module, nn.Module]:
    try:
        graph = _Tracer(name).trace(model)
    except Exception as error:
        raise InputError(f"{type(model).__name__} cannot be traced to cut it at {name!r}: {error}") from error
    uses = [node for node in graph.nodes if node.op == "call_module" and node.target == name]
    if len(uses) != 1:
        raise InputError(f"the layer {name!r} is used {len(uses)} times in a forward pass; a cut needs exactly one")
    # deep copies of the graph alone: both halves keep the network's own layers
    lower, upper = copy.deepcopy(graph), copy.deepcopy(graph)
    at = next(node for node in lower.nodes if node.name == uses[0].name)
    end = next(node for node in lower.nodes if node.op == "output")
    end.args = (at if side == "after" else at.args[0],)
    _drop_unused(lower)
    at = next(node for node in upper.nodes if node.name == uses[0].name)
    inputs = [node for node in upper.nodes if node.op == "placeholder"]
    replaced = at if side == "after" else at.args[0]
    with upper.inserting_before(inputs[0]):
        start = upper.placeholder("activation")
    replaced.replace_all_uses_with(start)
    _drop_unused(upper)
    for node in inputs:
        if node.users:
            raise InputError(f"the network has a way round {name!r}, so what comes after needs more than its output")
        upper.erase_node(node)
    return fx.GraphModule(model, lower), fx.GraphModule(model, upper)


def _drop_unused(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("output", "placeholder"):
            graph.erase_node(node)
