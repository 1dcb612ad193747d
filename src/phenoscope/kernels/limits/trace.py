"""A network as a list of rules for its kernels, or a clear refusal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from torch import fx, nn

from ...core.errors import InputError
from . import pointwise
from .dense_rules import Activate, Add, Concatenate, Dropout, Normalize, Scale
from .layer_rules import FUNCTIONS, LAYERS, Embed, Laws, Made, Source, features_axis, weighted, without_parameters
from .pointwise import Pointwise
from .program import Known, Program, Recipe, Step
from .state import Rule

_INSTEAD = {
    "BatchNorm": "use nn.LayerNorm or nn.GroupNorm",
    "batch_norm": "use nn.LayerNorm or nn.GroupNorm",
    "MultiheadAttention": "use models.LinearAttention, whose scores have no softmax",
    "oftmax": "use models.LinearAttention, whose scores have no softmax",
    "scaled_dot": "use models.LinearAttention, whose scores have no softmax",
    "Max": "use average pooling",
    "max": "use average pooling",
    "Dropout": "use nn.Dropout",
    "PReLU": "use nn.LeakyReLU",
}


@dataclasses.dataclass(frozen=True)
class _Size:
    """Sides of a layer's output, or a number made from them."""


@dataclasses.dataclass(frozen=True)
class _Facts:
    """What is known of a layer's outputs without looking at data.

    Attributes:
        gaussian: whether all features are Gaussian.
        terms: the sum that they are: of each term the linear layer it comes straight from, `None` if it does not, and
            all linear layers before it and itself.
    """

    gaussian: bool
    terms: tuple[tuple[str | None, frozenset[str]], ...]

    @property
    def behind(self) -> frozenset[str]:
        return frozenset[str]().union(*(before for _, before in self.terms))


def trace(model: nn.Module, laws: Laws) -> Program:
    """The rules of a network's layers in the order in which its forward pass calls them.

    Args:
        model: what `torch.fx` can trace.
        laws: of weights and biases.

    Raises:
        InputError: a forward pass that cannot be traced, or a layer without a known limit, with its place.
    """
    tracer = _Tracer()
    if tracer.is_leaf_module(model, "") or pointwise.is_pointwise_module(model):
        model = nn.Sequential(model)  # torch.fx looks into what it is given
    try:
        graph = tracer.trace(model)
    except Exception as error:
        place = tracer.inside[-1] if tracer.inside else f"the forward pass of {type(model).__name__}"
        raise InputError(f"torch.fx cannot trace {place}: {str(error).splitlines()[0]}") from error
    return _Reader(model, graph, laws).program()


class _Tracer(fx.Tracer):
    """Layers of torch and those that have a rule are not looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in LAYERS or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.inside.append(f"{type(m).__name__} at {self.path_of_module(m)!r}")
        result = super().call_module(m, forward, args, kwargs)
        self.inside.pop()
        return result


class _Reader:
    """Goes once through a graph."""

    def __init__(self, model: nn.Module, graph: fx.Graph, laws: Laws) -> None:
        self.model, self.graph, self.laws = model, graph, laws
        self.values: dict[fx.Node, Any] = {}
        self.facts: dict[str, _Facts] = {}
        self.steps: list[Step] = []
        self.recipes: list[Recipe] = []
        self.input = ""
        self.weights: dict[int, str] = {}
        self.made: dict[int, str] = {}
        self.place = ""

    def program(self) -> Program:
        result: Any = None
        for node in self.graph.nodes:
            self.place = self._place(node)
            try:
                result = self.values[node] = self._value(node)
            except InputError as error:
                raise error if self.place in str(error) else InputError(f"{self.place}: {error}") from None
        return Program(self.input, tuple(self.recipes), _laid_out(self.steps), result)

    def _place(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"{type(self.model.get_submodule(str(node.target))).__name__} at {node.target!r}"
        stack = list(node.meta.get("nn_module_stack", {}).values())
        inside = f"{stack[-1][0]!r}" if stack and stack[-1][0] else f"the forward pass of {type(self.model).__name__}"
        return f"{pointwise.name_of(node.target)} in {inside}"

    def _refuse(self, name: str) -> NoReturn:
        instead = next((hint for part, hint in _INSTEAD.items() if part in name), None)
        raise InputError(f"{self.place} has no known infinitely wide limit" + (f": {instead}" if instead else ""))

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            if node.args:
                return node.args[0]
            if self.input:
                raise InputError(f"the network takes more than one input: {self.input}, {node.target}")
            self.input = node.name
            return Known(node.name)
        if node.op == "get_attr":
            return self._attribute(str(node.target))
        args: Any = fx.node.map_arg(node.args, lambda other: self.values[other])
        kwargs: Any = fx.node.map_arg(dict(node.kwargs), lambda other: self.values[other])
        if node.op == "output":
            if not isinstance(args[0], Pointwise):
                raise InputError("the network must give one tensor, behind a linear layer")
            return self._state(args[0])
        if node.op == "call_module":
            return self._module(node, self.model.get_submodule(str(node.target)), args, kwargs)
        return self._call(node, args, kwargs)

    def _attribute(self, name: str) -> Any:
        value: Any = self.model
        for part in name.split("."):
            value = getattr(value, part)
        if isinstance(value, nn.Parameter):
            raise InputError(f"the parameter {name!r} is used outside of a layer, which has no known limit")
        return value

    def _module(self, node: fx.Node, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        given = args[0] if args else next(iter(kwargs.values()))
        kind = type(module)
        on_data = isinstance(given, Known)
        if kind is nn.Identity or (isinstance(module, _DROPOUTS) and not (module.training and module.p)):
            return given
        if isinstance(given, Pointwise) and pointwise.is_pointwise_module(module):
            return pointwise.after_module(given, module)
        if on_data and kind not in (nn.Dropout, *_LINEAR):
            bare = without_parameters(module)
            if bare is not None:
                return self._recipe(node, bare, (given,), {})
            if not list(module.parameters()) and not list(module.buffers()) and not isinstance(module, _NOT_ON_DATA):
                return self._recipe(node, module, args, kwargs)
        if kind not in LAYERS or not isinstance(given, (Pointwise, Known)) or len(args) + len(kwargs) > 1:
            self._refuse(kind.__name__)
        return self._layer(node, LAYERS[kind](module, self.laws, on_data), given, list(module.parameters()))

    def _layer(self, node: fx.Node, rule: Made, given: Any, parameters: Sequence[nn.Parameter] = ()) -> Any:
        if rule is None:
            return given
        if not weighted(rule):
            if isinstance(given, Known):
                raise InputError("acts on the inputs, before any linear layer, which has no known limit")
            return self._plain(node, rule, given)
        for parameter in parameters:
            if self.weights.setdefault(id(parameter), node.name) != node.name:
                raise InputError("its weights are used more than once in a forward pass, which has no known limit here")
        if isinstance(rule, Embed):
            if not isinstance(given, Known):
                raise InputError("an embedding takes the network's inputs only")
            return self._step(node.name, rule, (given.name,), _Facts(True, ((node.name, frozenset({node.name})),)))
        if isinstance(given, Known):
            facts = _Facts(False, ((None, frozenset()),))
            name = self._step(f"{node.name}.inputs", Source(features_axis(rule)), (given.name,), facts).root
        else:
            name = self._state(given)
        behind = self.facts[name].behind | {node.name}
        return self._step(node.name, rule, (name,), _Facts(True, ((node.name, behind),)))

    def _plain(self, node: fx.Node, rule: Made, given: Any) -> Pointwise:
        """A layer without weights."""
        assert rule is not None
        name = self._state(given)
        facts = self.facts[name]
        if isinstance(rule, Normalize) and rule.centers and any(layer is None for layer, _ in facts.terms):
            raise InputError(
                "takes off the mean of what does not come straight from linear layers, which has no known limit: "
                "normalize before the activation"
            )
        if isinstance(rule, Dropout):
            facts = dataclasses.replace(facts, gaussian=False)
        return self._step(node.name, rule, (name,), facts)

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        name = pointwise.name_of(node.target)
        given = list(_flat((args, kwargs)))
        tensors = [each for each in given if isinstance(each, (Pointwise, Known))]
        if not any(isinstance(each, Pointwise) for each in tensors):
            if any(isinstance(each, _Size) for each in given):
                return _Size()
            if name in ("dropout", "batch_norm") and tensors:
                self._refuse(name)
            return self._recipe(node, _calling(node), args, kwargs)
        if name == "size" or (name == "getattr" and args[1] in ("shape", "ndim")):
            return _Size()
        if name in ("contiguous", "clone"):
            return tensors[0]
        if pointwise.is_pointwise(name):
            outputs = [each for each in tensors if isinstance(each, Pointwise)]
            if len(outputs) == len(tensors) and len({each.root for each in outputs}) == 1:
                return pointwise.after_call(name, node.target, args, kwargs, outputs)
            if name in ("add", "sub") and len(tensors) == 2 and not kwargs:
                return self._add(node, tensors)
        if name in ("cat", "concat", "concatenate"):
            return self._concatenate(node, args, kwargs)
        if name not in FUNCTIONS or not isinstance(args[0], Pointwise):
            self._refuse(name)
        try:
            rule = FUNCTIONS[name](*args[1:], **kwargs)
        except TypeError as error:
            raise InputError(f"these arguments have no known limit ({error})") from error
        return self._layer(node, rule, args[0])

    def _add(self, node: fx.Node, branches: list[Pointwise | Known]) -> Pointwise:
        names = [self._state(each) for each in branches if isinstance(each, Pointwise)]
        for each in branches:
            if isinstance(each, Known):  # the inputs' features stand where the other branch has its own
                facts = _Facts(False, ((None, frozenset()),))
                names.append(self._step(f"{node.name}.inputs", Source(None), (each.name, names[0]), facts).root)
        first, second = (self.facts[name] for name in names)
        for layer, behind in first.terms:
            for other, others in second.terms:
                if (layer is None or layer in others) and (other is None or other in behind):
                    raise InputError(
                        "the two branches are correlated, and the limit of such a sum is not known: let one of them "
                        "end in a linear layer of its own"
                    )
        both = _Facts(first.gaussian and second.gaussian, first.terms + second.terms)
        return self._step(node.name, Add(), tuple(names), both)

    def _concatenate(self, node: fx.Node, args: Any, kwargs: Any) -> Pointwise:
        axis = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
        if not all(isinstance(each, Pointwise) for each in args[0]):
            raise InputError("the inputs beside a layer's outputs have no known limit")
        names = [self._state(each) for each in args[0]]
        terms = tuple(term for name in names for term in self.facts[name].terms)
        return self._step(node.name, Concatenate(axis), tuple(names), _Facts(False, terms))

    def _recipe(self, node: fx.Node, function: Callable[..., Any], args: Any, kwargs: Any) -> Known:
        self.recipes.append(Recipe(node.name, self.place, function, args, kwargs))
        return Known(node.name)

    def _step(self, name: str, rule: Rule | Source | Embed, inputs: tuple[str, ...], facts: _Facts) -> Pointwise:
        self.steps.append(Step(name, self.place, rule, inputs))
        self.facts[name] = facts
        return pointwise.unchanged(name)

    def _state(self, value: Pointwise) -> str:
        """The name of a value's state; all that has been done to it number by number becomes one rule."""
        if value.identity:
            return value.root
        if id(value) in self.made:
            return self.made[id(value)]
        facts = self.facts[value.root]
        rule: Rule
        if value.slopes is not None and value.slopes[0] == value.slopes[1]:
            rule = Scale(value.slopes[0])
        else:
            if not facts.gaussian:
                raise InputError(
                    "an activation before it acts on what is not Gaussian: put a linear layer between two activations, "
                    "and before an activation of a sum, of dropout or of concatenated features"
                )
            rule = Activate(value.activation(), 1.0 if value.slopes is not None else value.gain)
            facts = _Facts(False, ((None, facts.behind),))
        name = f"{value.root}.{len(self.made)}"
        self._step(name, rule, (value.root,), facts)
        self.made[id(value)] = name
        self.values[fx.Node(self.graph, name, "placeholder", name, (), {})] = value  # its id stays its own
        return name


_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_NOT_ON_DATA = (*_DROPOUTS, nn.modules.batchnorm._NormBase)


def _calling(node: fx.Node) -> Callable[..., Any]:
    target: Any = node.target
    if node.op == "call_method":
        return lambda tensor, *args, **kwargs: getattr(tensor, target)(*args, **kwargs)
    function: Callable[..., Any] = target
    return function


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for each in value:
            yield from _flat(each)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))
    elif isinstance(value, slice):
        yield from (value.start, value.stop, value.step)
    else:
        yield value


def _laid_out(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps, each knowing whether one that comes after it needs every pair of positions."""
    wanted: dict[str, bool] = {}
    placed = []
    for step in reversed(steps):
        full = wanted.get(step.name, False)
        placed.append(dataclasses.replace(step, full=full))
        if not isinstance(step.rule, (Source, Embed)):
            for name in step.inputs:
                wanted[name] = wanted.get(name, False) or (full if step.rule.pairs is None else step.rule.pairs)
    return tuple(reversed(placed))
