"""How much a network needs each of its layers to be trained: one is put back, all others stay."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.random import child_seeds
from ...data.batches import Data, batches
from ...train import accuracy, build
from ...train.outputs import placed
from ...train.statistics import refresh_statistics_
from ..weights.norms import check_state

if TYPE_CHECKING:
    import xarray

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
AMBIENT, CRITICAL = 0.1, 0.5  # shares of what the network is better than chance


def layer_criticality(
    model: nn.Module,
    states: Mapping[int, Mapping[str, Tensor]],
    data: Data,
    *,
    make_model: Callable[..., nn.Module] | None = None,
    repeats: int = 3,
    group: Literal["layer", "block"] = "layer",
    refresh_bn: Tensor | None = None,
    generator: torch.Generator | int | None = None,
) -> xarray.Dataset:
    """Put one layer of a trained network back to what it was before, and see what that costs.

    After Zhang, Bengio and Singer, "Are All Layers Created Equal?" (ICML 2019 workshop; JMLR 2022): layer l takes its
    parameters of step tau, all others stay as trained, c_l = accuracy - accuracy with l replaced. tau = 0 is
    re-initialization with the layer's own initial values; re-randomization draws new ones from the same law. A layer is
    ambient if c_l at the first step is below a tenth of what the network is better than chance, 1 / classes, and
    critical if it is above half of it. Buffers, such as the running statistics of batch normalization, stay as
    trained.

    Args:
        model: a trained network; it is left as it was found.
        states: step -> its `state_dict` then; 0 is the initialization. A `train.States`, or `{0: init_state}`.
        data: what accuracy is taken on; data that it was not trained on.
        make_model: the network's factory, for re-randomization; without it there is none. `train.build` calls it,
            with the shape of one example and the number of classes.
        repeats: new draws of a layer.
        group: "layer": every module with parameters of its own; "block": norms go with the layer before them.
        refresh_bn: training inputs, to have everything once more with running statistics computed anew on them.
        generator: what new values are drawn from.

    Returns:
        Over `layer`, `step` and `repeat`:

        - `accuracy`: of the network as it is.
        - `replaced` (layer, step), `criticality` (layer, step): accuracy with the layer replaced, and what that costs.
        - `rerandomized` (layer, repeat): accuracy with new values for the layer.
        - `kind` (layer): "ambient", "critical" or "between".
        - `together` (step): accuracy with all ambient layers replaced; `all_replaced` (step): with all layers replaced.
        - `l2`, `linf` (layer, step): root mean square, and largest, change of the layer's parameters since the step.
        - `refreshed` (layer, step), `rerandomized_refreshed` (layer, repeat): as `replaced` and `rerandomized`, with
          new running statistics.

    Raises:
        InputError: no states, a state that does not match, a network without parameters, or a factory that makes
            another network.
    """
    import numpy
    import xarray

    steps = sorted(states)
    if not steps:
        raise InputError("layer_criticality needs states: {0: the state_dict before training}")
    for step in steps:
        check_state(model, states[step])
    if group not in ("layer", "block"):
        raise InputError(f'group must be "layer" or "block", not {group!r}')
    if make_model is not None and repeats < 1:
        raise InputError(f"repeats must be at least 1, not {repeats}")
    layers = _layers(model, group)
    probe = _Probe(model, data, refresh_bn)
    full = accuracy(model, data)
    replaced = [[probe(names, states[step]) for step in steps] for names in layers.values()]
    out = xarray.Dataset(
        {"accuracy": full, "replaced": (("layer", "step"), [[plain for plain, _ in row] for row in replaced])},
        {"layer": list(layers), "step": steps},
    )
    out["criticality"] = out.accuracy - out.replaced
    better = full - 1 / _classes(model, data)
    first = out.criticality.isel(step=0, drop=True).values
    kinds = numpy.where(
        first < AMBIENT * better, "ambient", numpy.where(first > CRITICAL * better, "critical", "between")
    )
    out["kind"] = "layer", kinds
    ambient = [name for names, kind in zip(layers.values(), kinds, strict=True) for name in names if kind == "ambient"]
    everything = [name for names in layers.values() for name in names]
    out["together"] = "step", [probe(ambient, states[step])[0] for step in steps]
    out["all_replaced"] = "step", [probe(everything, states[step])[0] for step in steps]
    changes = [[_change(model, names, states[step]) for step in steps] for names in layers.values()]
    for place, name in enumerate(("l2", "linf")):
        out[name] = ("layer", "step"), [[change[place] for change in row] for row in changes]
    if refresh_bn is not None:
        out["refreshed"] = ("layer", "step"), [[fresh for _, fresh in row] for row in replaced]
    if make_model is not None:
        drawn = [_fresh(make_model, model, data, seed) for seed in child_seeds(generator, repeats)]
        found = [[probe(names, state) for state in drawn] for names in layers.values()]
        out["rerandomized"] = ("layer", "repeat"), [[plain for plain, _ in row] for row in found]
        if refresh_bn is not None:
            out["rerandomized_refreshed"] = ("layer", "repeat"), [[fresh for _, fresh in row] for row in found]
        out = out.assign_coords(repeat=range(repeats))
    return out


def _layers(model: nn.Module, group: str) -> dict[str, list[str]]:
    """Name of a layer -> names of its parameters; parameters that are shared belong to the first that has them."""
    seen: set[int] = set()
    found: dict[str, list[str]] = {}
    last = None
    for prefix, module in model.named_modules():
        own = []
        for key, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                own.append(f"{prefix}.{key}" if prefix else key)
        if own and group == "block" and isinstance(module, _NORMS) and last is not None:
            found[last] += own
        elif own:
            last = prefix or "model"
            found[last] = own
    if not found:
        raise InputError("the model has no parameters, so no layer to put back")
    return found


class _Probe:
    """Accuracy with some parameters replaced, on a copy; with running statistics kept, and computed anew."""

    def __init__(self, model: nn.Module, data: Data, refresh: Tensor | None) -> None:
        self.network = copy.deepcopy(model).eval()
        self.parameters = dict(self.network.named_parameters())
        self.data, self.refresh = data, refresh

    @torch.no_grad()
    def __call__(self, names: Sequence[str], state: Mapping[str, Tensor]) -> tuple[float, float]:
        before = {name: self.parameters[name].clone() for name in names}
        try:
            for name in names:
                self.parameters[name].copy_(state[name])
            plain = accuracy(self.network, self.data)
            return plain, torch.nan if self.refresh is None else accuracy(self._refreshed(self.refresh), self.data)
        finally:
            for name, value in before.items():
                self.parameters[name].copy_(value)

    def _refreshed(self, x: Tensor) -> nn.Module:
        return refresh_statistics_(copy.deepcopy(self.network), (x, x.new_zeros(len(x)))).eval()


def _classes(model: nn.Module, data: Data) -> int:
    x, y = next(iter(batches(data, 1)))
    network = copy.deepcopy(model).eval()
    with torch.no_grad():
        return int(network(placed(x[:1], y[:1], network)[0]).shape[1])


def _change(model: nn.Module, names: Sequence[str], state: Mapping[str, Tensor]) -> tuple[float, float]:
    parameters: Any = dict(model.named_parameters())
    moved = torch.cat([(parameters[name].detach() - state[name].to(parameters[name])).flatten() for name in names])
    return float(moved.double().square().mean().sqrt()), float(moved.abs().max())


def _fresh(make_model: Callable[..., nn.Module], model: nn.Module, data: Data, seed: int) -> Mapping[str, Tensor]:
    x, _ = next(iter(batches(data, 1)))
    state = build(make_model, shape=x.shape[1:], num_classes=_classes(model, data), generator=seed).state_dict()
    for name, value in model.named_parameters():
        if name not in state or state[name].shape != value.shape:
            raise InputError(f"make_model gives another network: its {name!r} is not of shape {tuple(value.shape)}")
    return state
