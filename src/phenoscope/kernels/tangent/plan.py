"""Which parameters of a network go by the rule of their layer, and what every example of it costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ...core.parameters import parameter_dict
from .passes import Unsuited, cotangents
from .rules import Patches, Rule, Tokens, rule_of

_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}
_TERM = 8  # what multiplying and summing two entries that are in memory costs, in multiplications of matrices


@dataclasses.dataclass(eq=False)
class Part:
    """A layer in the kernel.

    Attributes:
        rule: its rule.
        uses: how often it is used in a pass.
        positions: L, over all uses.
        inputs: numbers that it takes in for an example.
        given: numbers that it gives for an example.
    """

    rule: Rule
    uses: int = 0
    positions: int = 0
    inputs: int = 0
    given: int = 0

    def by_gradients(self, n1: int, n2: int, outputs: int, full: bool, symmetric: bool = False) -> float:
        """Multiplications for a block of n1 x n2 by the gradients of single examples: forming them, then products."""
        rule, pairs = self.rule, n1 * n2 * outputs ** (2 if full else 1)
        positions = 1 if isinstance(rule, Tokens) else self.positions
        return pairs * rule.size + (n1 if symmetric else n1 + n2) * outputs * rule.size * positions

    def by_positions(self, n1: int, n2: int, outputs: int, full: bool, symmetric: bool = False) -> float:
        """The same by products of patches and of slopes at every pair of positions."""
        rule, places = self.rule, self.positions
        patches = 1 if isinstance(rule, Tokens) else rule.width
        each = places**2 * (patches + outputs * rule.outputs)
        if full:
            each += places * rule.outputs * outputs * (outputs + _TERM)
        elif places > 1:
            each += _TERM * places**2
        return n1 * n2 * rule.groups * each / (2 if symmetric else 1)

    def keeps_gradients(self, n: int, outputs: int, full: bool) -> bool:
        """Whether gradients of n examples are formed once and kept: where they are used, and smaller than the rest."""
        if not isinstance(self.rule, (Patches, Tokens)):
            return True
        used = self.by_gradients(n, n, outputs, full) < self.by_positions(n, n, outputs, full)
        return used and outputs * self.rule.size <= self.inputs + outputs * self.given


@dataclasses.dataclass(eq=False)
class Plan:
    """How the kernel of a network is made.

    Attributes:
        model: the network.
        parts: layers that go by their rule.
        rest: parameters that do not, whose gradients are formed example by example.
        saved: bytes that a pass forward keeps for an example.
        reasons: why some layers do not go by a rule.
    """

    model: nn.Module
    parts: list[Part]
    rest: dict[str, Tensor]
    saved: int
    reasons: list[str]

    @property
    def rest_size(self) -> int:
        return sum(value.numel() for value in self.rest.values())


def plan(model: nn.Module, x: Tensor, outputs: int, *, layers: bool = True) -> Plan:
    """What goes by rules, found out on one example or two and checked there against plain derivatives.

    Args:
        model: a network.
        x: (1 or 2, ...) inputs.
        outputs: how many the network has.
        layers: whether rules are used at all.
    """
    known = parameter_dict(model)
    pair = x if len(x) == 2 else torch.cat([x, x])
    reasons: list[str] = []
    rules = _rules(model) if layers else []
    while True:
        try:
            parts, wrong, saved = _checked(model, rules, pair, outputs)
        except Unsuited as reason:
            reasons.append(str(reason))
            rules, wrong = [rule for rule in rules if type(rule.layer).__name__ not in str(reason)], []
            continue
        break
    reasons += [f"{type(rule.layer).__name__} gives other derivatives than its rule" for rule in wrong]
    covered = {id(p) for part in parts for p in part.rule.parameters}
    rest = {name: known[name] for name, p in model.named_parameters() if name in known and id(p) not in covered}
    return Plan(model, parts, rest, saved, reasons)


def _rules(model: nn.Module) -> list[Rule]:
    found = [rule for rule in map(rule_of, model.modules()) if rule is not None]
    owners: dict[int, int] = {}
    for module in model.modules():
        for p in module._parameters.values():
            if p is not None:
                owners[id(p)] = owners.get(id(p), 0) + 1
    return [rule for rule in found if all(owners[id(p)] == 1 for p in rule.parameters)]


def _checked(model: nn.Module, rules: Sequence[Rule], pair: Tensor, outputs: int) -> tuple[list[Part], list[Rule], int]:
    """The rules that give the products of plain derivatives on two examples, those that do not, bytes of a pass."""
    weights = torch.linspace(0.5, 1.5, outputs, dtype=torch.float64).cos()
    plain = [dict(_plain(model, one, weights)) for one in pair.split(1)]
    saved: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = _combined(model, rules, pair, weights)
    whole = sum(float(_products([g])[0, 0]) for g in plain[0].values())
    parts, wrong = [], []
    for rule, (part, gradients) in zip(rules, found, strict=True):
        if gradients is None:
            wrong.append(rule)
            continue
        theirs = [torch.cat([one.get(id(p), torch.zeros_like(p)).flatten() for p in rule.parameters]) for one in plain]
        a, b = _products(list(gradients)), _products(theirs)
        scale = float(b.diagonal().max()) + 1e-8 * whole
        tolerance = _TOLERANCE.get(gradients.dtype, 0.1)
        if float((a - b).abs().max()) <= tolerance * scale:
            parts.append(part)
        else:
            wrong.append(rule)
    return parts, wrong, sum(saved.values()) // 2


def _products(gradients: list[Tensor]) -> Tensor:
    rows = torch.stack([each.double().cpu().flatten() for each in gradients])
    return rows @ rows.T


def _plain(model: nn.Module, x: Tensor, weights: Tensor) -> Iterator[tuple[int, Tensor]]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.enable_grad():
        out = model(x).reshape(-1)
        if not out.requires_grad:
            return
        found = torch.autograd.grad((out * weights.to(out)).sum(), parameters, allow_unused=True)
    for p, gradient in zip(parameters, found, strict=True):
        if gradient is not None:
            yield id(p), gradient


def _combined(
    model: nn.Module, rules: Sequence[Rule], pair: Tensor, weights: Tensor
) -> list[tuple[Part, Tensor | None]]:
    """For every rule its part, and the gradients (2, P) of one combination of outputs; `None` if shapes do not fit."""
    combined = _Combination(model, weights)
    (_, taken, slopes), *_ = cotangents(combined, [rule.layer for rule in rules], pair, range(1))
    found: list[tuple[Part, Tensor | None]] = []
    for rule, inputs, gradients in zip(rules, taken, slopes, strict=True):
        part = Part(rule, len(inputs))
        if not inputs:
            found.append((part, torch.zeros(2, rule.size, dtype=weights.dtype)))
            continue
        if any(len(each) != 2 for each in inputs) or any(g.shape[1] != 2 for g in gradients):
            found.append((part, None))
            continue
        part.inputs = sum(each[0].numel() for each in inputs)
        part.given = sum(g[0, 0].numel() for g in gradients)
        vectors = formed(rule, rule.taken(inputs), [g[0] for g in gradients])
        if isinstance(rule, (Patches, Tokens)):
            part.positions = part.given // (rule.groups * rule.outputs)
        found.append((part, vectors))
    return found


def formed(rule: Rule, taken: Tensor | list[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """The gradients (n, P) of one output by a layer's parameters."""
    if isinstance(rule, (Patches, Tokens)):
        return rule.formed(taken, rule.slopes(gradients)[:, None]).flatten(1)  # type: ignore[arg-type]
    return rule.gradient(taken, gradients)


class _Combination(nn.Module):
    """A network's outputs combined into one."""

    def __init__(self, model: nn.Module, weights: Tensor) -> None:
        super().__init__()
        self.model, self.weights = model, weights

    def forward(self, x: Tensor) -> Tensor:
        out = self.model(x).reshape(len(x), -1)
        return (out @ self.weights.to(out))[:, None]
