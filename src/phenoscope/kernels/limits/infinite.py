"""The two kernels of an `nn.Module` of infinite width."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from .layer_rules import Embed, Laws, Source
from .program import Program, Step, values_of
from .result import LimitKernels
from .state import State
from .trace import trace

Which = Literal["nngp", "ntk"]
_ENTRIES_CPU = 2**18  # of one block's state: it stays in the cache
_ENTRIES_CUDA = 2**25
_AT_ONCE = 2**22  # entries of states of examples with themselves


def infinite(
    model: nn.Module,
    *,
    sigma_w2: float | None = None,
    sigma_b2: float | None = None,
    parametrization: Literal["ntk", "standard"] = "ntk",
    width_multiplier: float = 1.0,
    dtype: torch.dtype = torch.float64,
    examples_at_once: int | None = None,
) -> Kernel:
    """The NNGP and the tangent kernel of a network whose hidden layers are infinitely wide.

    The network is traced by `torch.fx` and its layers become rules for the covariance of outputs and the product of
    gradients of two examples, in the order of its forward pass (Jacot, Gabriel and Hongler, NeurIPS 2018; Novak, Xiao,
    Bahri et al., ICLR 2019; Yang, "Tensor Programs II", 2020). No weight is looked at and no number is drawn: the
    limit is that of the laws that weights and biases come from. Without `sigma_w2` and `sigma_b2` these are those of
    torch's `reset_parameters`: variance of a weight times fan-in 1/3, of a bias 1 / (3 fan_in), which in hidden
    layers vanishes; of an embedding 1. Layers of `models` in the NTK parametrization have their own. Scales and shifts
    of normalizations count as fixed at one and zero.

    Known are Linear, Conv1d and Conv2d, `models.NTKLinear` and `NTKConv2d`, Embedding, `models.LinearAttention`,
    activations of torch and any function of single numbers, average pooling, means over space, flattening, sums of
    branches and concatenated features, LayerNorm, GroupNorm, RMSNorm, and Dropout, which acts in training mode only.
    What a forward pass does to the inputs before the first linear layer is done to them.

    Args:
        model: a network from inputs to (N, outputs). Its mode, dropout's, is read now.
        sigma_w2: variance of weights times fan-in, of all layers.
        sigma_b2: variance of biases, of all layers that have one.
        parametrization: what gradients are products of: "ntk", weights of size one with their scale beside them; or
            "standard", the weights as torch has them, the learning rate growing as the inverse of the width
            (Sohl-Dickstein, Novak, Schoenholz and Lee, 2020). `NTKLinear` and `NTKConv2d` keep "ntk".
        width_multiplier: in the standard parametrization, how many times wider the hidden layers are than those that
            the learning rate is meant for.
        dtype: of the computation and the result.
        examples_at_once: rows and columns of a block of the kernel; as many as fit the processor's cache unless said.

    Returns:
        What makes kernels of inputs.

    Raises:
        InputError: a layer without a known limit, by type and place; or a number outside its range.

    Examples:
        >>> net = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, 1))
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> infinite(net, sigma_w2=2.0, sigma_b2=0.0)(x).nngp.diagonal().tolist()
        [1.0, 1.0]
    """
    for name, value in (("sigma_w2", sigma_w2), ("sigma_b2", sigma_b2)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} must be a finite variance, at least 0, not {value!r}")
    if parametrization not in ("ntk", "standard"):
        raise InputError(f'parametrization must be "ntk" or "standard", not {parametrization!r}')
    if not (math.isfinite(width_multiplier) and width_multiplier > 0):
        raise InputError(f"width_multiplier must be above 0, not {width_multiplier!r}")
    if not dtype.is_floating_point:
        raise InputError(f"dtype must be a floating-point type, not {dtype}")
    if examples_at_once is not None and examples_at_once < 1:
        raise InputError(f"examples_at_once must be at least 1, not {examples_at_once}")
    laws = Laws(sigma_w2, sigma_b2, parametrization, width_multiplier)
    return Kernel(trace(model, laws), dtype=dtype, examples_at_once=examples_at_once)


class Kernel:
    """From inputs to the kernels of an infinitely wide network, as `infinite` makes it."""

    def __init__(self, program: Program, *, dtype: torch.dtype, examples_at_once: int | None) -> None:
        self.dtype, self.examples_at_once = dtype, examples_at_once
        self._program = program
        self._last_use = {name: step.name for step in program.steps for name in step.inputs}

    def __call__(
        self, x1: Tensor, x2: Tensor | None = None, get: tuple[Which, ...] | Which = ("nngp", "ntk")
    ) -> LimitKernels:
        """The kernels of two sets of inputs.

        Args:
            x1: (n1, ...) inputs.
            x2: (n2, ...) inputs; `x1` if `None`, of which one half is computed.
            get: which of the two kernels; one that was not asked for is not computed, and reading it is an error.

        Returns:
            Kernels (n1, n2), where the inputs are.

        Raises:
            InputError: inputs that are empty, not finite, of unequal shapes, or not what the layers expect.
        """
        wanted = (get,) if isinstance(get, str) else tuple(get)
        if not wanted or set(wanted) - {"nngp", "ntk"}:
            raise InputError(f'get must name "nngp", "ntk" or both, not {get!r}')
        if (
            isinstance(x1, Tensor)
            and isinstance(x2, Tensor)
            and (x1.shape[1:] != x2.shape[1:] or x1.device != x2.device)
        ):
            raise InputError(
                f"the two sets of inputs must be alike, not {tuple(x1.shape[1:])} and {tuple(x2.shape[1:])}"
            )
        sides = [self._side(x) for x in ((x1,) if x2 is None else (x1, x2))]
        rows, columns = sides[0], sides[-1]
        result: dict[str, Tensor] = {
            name: torch.empty(len(x1), columns.count, dtype=self.dtype, device=x1.device) for name in wanted
        }

        def fill(place: tuple[slice, slice]) -> None:
            i, j = place
            with torch.no_grad():  # a setting of each thread
                state = self._run(rows, i, columns, j, tangent="ntk" in wanted, same=x2 is None and i == j)
            for name, kernel in result.items():
                block = (state.nngp if name == "nngp" or state.ntk is None else state.ntk)[0]
                if x2 is None and i == j:  # to the last digit, which products of matrices do not promise
                    block = block.triu() + block.triu(1).T
                kernel[i, j] = block
                if x2 is None and i != j:
                    kernel[j, i] = block.T

        blocks = list(self._blocks(rows.count, columns.count, rows.entries, x1.device, symmetric=x2 is None))
        if x1.device.type == "cpu" and len(blocks) > 1 and torch.get_num_threads() > 1:
            _side_by_side(fill, blocks)
        else:
            for place in blocks:
                fill(place)
        if len(result) == 2:
            return LimitKernels(**result)
        return _OneKernel.of(result)

    def _side(self, x: Tensor) -> _Side:
        """One set of inputs, with what layers need of each example by itself."""
        if not isinstance(x, Tensor) or x.dim() < 1 or not len(x):
            raise InputError("inputs must be a tensor (N, ...) of at least one example")
        if x.is_floating_point():
            if not torch.isfinite(x).all():
                raise InputError("the inputs have values that are not finite")
            x = x.detach().to(self.dtype)
        values = values_of(self._program, x)
        names = {step.inputs[0] for step in self._program.steps if isinstance(step.rule, (Source, Embed))}
        side = _Side(len(x), {name: values[name] for name in names}, {}, 1)
        for name, value in side.data.items():
            if not isinstance(value, Tensor) or value.dim() < 1 or len(value) != len(x):
                raise InputError(f"what the network makes of its inputs ({name}) is no longer one row an example")
        found: dict[str, list[Tensor]] = {}
        start, chunk = 0, 1
        with torch.no_grad():
            while start < len(x):  # the first example by itself tells how large its state is
                own: dict[str, Tensor] = {}
                self._run(side, slice(start, start + chunk), None, None, tangent=False, same=True, found=own)
                for name, value in own.items():
                    found.setdefault(name, []).append(value)
                start, chunk = start + chunk, max(1, _AT_ONCE // side.entries)
        side.own.update((name, torch.cat(parts)) for name, parts in found.items())
        return side

    def _blocks(
        self, rows: int, columns: int, entries: int, device: torch.device, *, symmetric: bool
    ) -> Iterator[tuple[slice, slice]]:
        size = self.examples_at_once
        if size is None:
            room = (_ENTRIES_CUDA if device.type == "cuda" else _ENTRIES_CPU) / entries
            size = max(1, math.isqrt(int(room)))
        for i in range(0, rows, size):
            for j in range(i if symmetric else 0, columns, size):
                yield slice(i, min(i + size, rows)), slice(j, min(j + size, columns))

    def _run(
        self,
        rows: _Side,
        i: slice,
        columns: _Side | None,
        j: slice | None,
        *,
        tangent: bool,
        same: bool,
        found: dict[str, Tensor] | None = None,
    ) -> State:
        """The last layer's state between some rows and some columns; of rows with themselves without columns.

        Args:
            rows, columns: the two sets.
            i, j: which examples of them.
            tangent, same: as in the state.
            found: where what layers need of each example by itself is put, without columns.
        """
        states: dict[str, State] = {}
        for step in self._program.steps:
            try:
                state = self._after(step, states, rows, i, columns, j, tangent, same, found)
            except InputError as error:
                raise InputError(f"{step.place}: {error}") from None
            states[step.name] = state
            if found is not None and i == slice(0, 1):
                rows.entries = max(rows.entries, state.nngp.numel())
        if state.space:
            raise InputError(
                f"the network's outputs stand on {'x'.join(map(str, state.space))} positions: end it with a mean over "
                "space or a flatten"
            )
        return state

    def _after(
        self,
        step: Step,
        states: dict[str, State],
        rows: _Side,
        i: slice,
        columns: _Side | None,
        j: slice | None,
        tangent: bool,
        same: bool,
        found: dict[str, Tensor] | None,
    ) -> State:
        rule = step.rule
        if isinstance(rule, (Source, Embed)):
            name = step.inputs[0]
            other = None if columns is None else columns.data[name][j]
            beside = states[step.inputs[1]] if len(step.inputs) > 1 else None
            settings: dict[str, Any] = {"full": step.full, "tangent": tangent, "same": same, "dtype": self.dtype}
            return rule(rows.data[name][i], other, beside, **settings)
        given = []
        for name in step.inputs:
            last = self._last_use[name] == step.name and step.inputs.count(name) == 1
            state = states.pop(name) if last else states[name]
            if state.full and not (step.full if rule.pairs is None else rule.pairs):
                state = state.spatial_diagonal()
                last = True
            given.append(state.copy() if rule.in_place and not last else state)
        if not rule.needs:
            return rule(given, None, None)
        if columns is None:
            assert found is not None
            own = given[0].variances() if rule.needs == "variances" else given[0].covariances()
            found[step.name] = own
            return rule(given, own, own)
        return rule(given, rows.own[step.name][i], columns.own[step.name][j])


def _side_by_side(work: Callable[[tuple[slice, slice]], None], blocks: list[tuple[slice, slice]]) -> None:
    """A block a thread: its operations are too small to be shared out among threads themselves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, blocks))
    finally:
        torch.set_num_threads(threads)


@dataclasses.dataclass(eq=False)
class _Side:
    """A set of inputs.

    Attributes:
        count: how many.
        data: what the kernels begin with, by name.
        own: what layers need of every example by itself, by layer.
        entries: the largest state of one pair.
    """

    count: int
    data: dict[str, Tensor]
    own: dict[str, Tensor]
    entries: int


class _OneKernel(LimitKernels):
    """One of the two."""

    @classmethod
    def of(cls, kernels: dict[str, Tensor]) -> _OneKernel:
        made = object.__new__(cls)
        made.__dict__.update(kernels)
        return made

    def __getattr__(self, name: str) -> Tensor:
        if name in ("nngp", "ntk"):
            raise AttributeError(f"{name} was not asked for: name it in get=")
        raise AttributeError(name)
