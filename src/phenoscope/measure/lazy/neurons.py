"""How many hidden units change sides while a network trains, and how far they move."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.guard import unchanged
from ...core.parameters import weight_names
from ...core.taps import rows_at_once, suited, tap
from .replay import over_states

if TYPE_CHECKING:
    import xarray

_RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU)  # above zero exactly where their input is
_ONES = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.int64)


def lazy_neurons(model: nn.Module, states: Mapping[int, Mapping[str, Tensor]], x: Tensor) -> xarray.Dataset:
    """The share of activations that flip, and the distances that hidden units travel, over saved states.

    Wide networks learn while hardly any unit changes sides or leaves its start: in a two-layer ReLU network of width m
    no unit moves by more than O(1 / sqrt(m)), and as small a share of (unit, input) pairs flips (Du, Zhai, Poczos and
    Singh, ICLR 2019, section 3). A pair is on where the unit's activation is above zero for this input, whatever the
    signs of its weights. `gram_stability` tells what that does to the Gram matrix.

    Args:
        model: the network that the states belong to; evaluated in evaluation mode and left as it was found. Its
            rectifiers are modules: ReLU, ReLU6 and leaky, parametric and randomized ones.
        states: step -> state_dict, as `train.States`; the lowest step is the one compared with.
        x: (n, ...) inputs on which activations are compared. Patterns are held as single bits.

    Returns:
        Over `step`: `flips` (step, rectifier), the share of (unit, input) pairs, each place of a convolution a unit,
        that are on now and were off at the start or the reverse. Over `step` and `weight` (names of parameters with
        two or more dimensions, a row of which is a unit): `largest` and `median`, of the distances |w_r(t) - w_r(0)|
        of its units, and `change`, |W(t) - W(0)|_F / |W(0)|_F (NaN where that is zero).

    Raises:
        InputError: no states, states of another network, no inputs, or a network without such rectifiers.
    """
    import xarray

    if x.ndim < 2 or not len(x):
        raise InputError(f"lazy_neurons needs inputs (n, ...); their shape is {tuple(x.shape)}")
    rectifiers = [name for name, module in model.named_modules() if isinstance(module, _RECTIFIERS)]
    if not rectifiers:
        raise InputError("the network has no rectifier among its modules (nn.ReLU and its kind): none can flip")
    names = weight_names(model)
    first: dict[str, np.ndarray] = {}
    start: dict[str, Tensor] = {}

    def observe() -> tuple[list[float], list[list[float]]]:
        patterns, counts = _patterns(model, rectifiers, x)
        weights = {name: p.detach().flatten(1) for name, p in model.named_parameters() if name in names}
        if not first:
            first.update(patterns)
            start.update({name: value.clone() for name, value in weights.items()})
        flips = [float(_ONES[first[name] ^ patterns[name]].sum() / counts[name]) for name in rectifiers]
        moved = []
        for name in names:
            distances = (weights[name] - start[name]).norm(dim=1).double()
            size = float(start[name].norm())
            change = float(distances.norm()) / size if size else float("nan")
            moved.append([float(distances.max()), float(distances.quantile(0.5)), change])
        return flips, moved

    found = over_states(model, states, observe)
    values = np.array([moved for _, moved in found.values()])
    return xarray.Dataset(
        {
            "flips": (("step", "rectifier"), np.array([flips for flips, _ in found.values()])),
            "largest": (("step", "weight"), values[..., 0]),
            "median": (("step", "weight"), values[..., 1]),
            "change": (("step", "weight"), values[..., 2]),
        },
        {"step": list(found), "rectifier": rectifiers, "weight": names},
    )


def _patterns(model: nn.Module, names: list[str], x: Tensor) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Which activations are above zero, a bit each, by rectifier; and how many there are."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    counts = dict.fromkeys(names, 0)

    def reader(name: str) -> Callable[[Tensor], Tensor]:
        def read(output: Tensor) -> Tensor:
            on = (output > 0).flatten().cpu().numpy()
            found[name].append(np.packbits(on))  # at once: what comes next may work in place
            counts[name] += on.size
            return output

        return read

    with unchanged(model), torch.no_grad(), contextlib.ExitStack() as stack:
        model.eval()
        for name in names:
            stack.enter_context(tap(model, name, replace=reader(name)))
        for rows in x.split(rows_at_once(x)):
            model(suited(model, rows))
    for name, parts in found.items():
        if not parts:
            raise InputError(f"the network does not use its rectifier {name!r}")
    return {name: np.concatenate(parts) for name, parts in found.items()}, counts
