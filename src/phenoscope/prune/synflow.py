"""SynFlow: prune without data, so that no layer is emptied; and how scores are conserved from layer to layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..data.batches import Data, batches
from ..models.masks import Masks, prunable
from .cut import copied
from .positive import Positive
from .scores import keep_top

if TYPE_CHECKING:
    import xarray

_SMALL = 2.0**-500  # a power of two: multiplying by it rounds nothing


class SynflowMasks(Masks):
    """Masks that `synflow` gives.

    Attributes:
        linearized: the operations that counted as the identity, because they are not linear on positive numbers:
            "tanh", "gelu", "layer_norm" ...
    """

    def __init__(self, masks: Mapping[str, Tensor], linearized: Sequence[str] = ()) -> None:
        super().__init__(masks)
        self.linearized = tuple(linearized)


def synflow(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    data: Data | None = None,
    *,
    density: float,
    shape: Sequence[int] | None = None,
    iterations: int = 100,
    schedule: Literal["exponential", "linear"] = "exponential",
    generator: torch.Generator | int | None = None,
) -> SynflowMasks:
    """Keep the weights that most of the synaptic flow passes (Tanaka, Kunin, Yamins and Ganguli, NeurIPS 2020).

    The paper's algorithm 1: after k of n iterations the density^(k/n) of all weights with the largest `synflow_scores`
    in the network that is left stay. Neither loss nor labels nor the values of the inputs matter, only their shape. No
    layer is emptied as long as more weights than one for each layer may stay.

    Args:
        model: the network; left as it was found.
        loss_fn: unused; every scorer takes one.
        data: where the shape of an input is read off: a pair of tensors `(x, y)` or a loader.
        density: the share of weights to keep.
        shape: of one input, without the batch axis, in place of `data`.
        iterations: how often to score; 1 prunes at once, which empties layers.
        schedule: of the density: "exponential", or "linear", 1 - (1 - density) k/n.
        generator: unused, since nothing is drawn; every scorer takes one.

    Returns:
        Masks; their `linearized` names what counted as the identity.

    Raises:
        InputError: a density or a number of iterations out of range, another schedule, neither data nor shape or both,
            or what `synflow_scores` refuses.
    """
    if not 0 < density <= 1:
        raise InputError(f"density is the share of weights to keep, above 0 and at most 1, not {density!r}")
    if iterations < 1:
        raise InputError(f"iterations must be at least 1, not {iterations}")
    if schedule not in ("exponential", "linear"):
        raise InputError(f"schedule must be 'exponential' or 'linear', not {schedule!r}")
    if (data is None) == (shape is None):
        raise InputError("give the shape of one input: data= or shape=, one of the two")
    if data is not None:
        x = _first_input(data)
        flow = _Flow(model, tuple(x.shape[1:]), whole=not x.is_floating_point())
    else:
        assert shape is not None
        flow = _Flow(model, tuple(shape))
    masks: Masks | None = None
    for number in range(1, iterations + 1):
        done = number / iterations
        share = density**done if schedule == "exponential" else 1 - (1 - density) * done
        scores = flow.scores(masks)
        if number == 1:
            _refuse_no_flow(scores)
        masks = keep_top(scores, density=share, within=masks)
    assert masks is not None
    return SynflowMasks(masks, flow.linearized)


def synflow_scores(
    model: nn.Module, *, shape: Sequence[int], masks: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The share of the synaptic flow that passes each prunable weight: |w| dR/d|w|.

    R is the sum of the outputs for one input of ones, of the network with the absolute value of every parameter and
    buffer, a sum over all paths of the product of their weights (Tanaka, Kunin, Yamins and Ganguli, NeurIPS 2020,
    equation 2). In a chain of layers without biases the scores of every layer sum to R. It is computed in float64;
    should that overflow, all scores are scaled by one constant. Batch norms work with their running statistics.

    Operations that are not linear on positive numbers (tanh, sigmoid, GELU, SiLU, softplus and their kind, layer and
    group normalization apart from scale and shift) are left out; `synflow` says which. The attention of a transformer
    stays as it is.

    Args:
        model: the network; left as it was found.
        shape: of one input, without the batch axis.
        masks: weights that are off already; their score is 0.

    Returns:
        Parameter name -> scores of the parameter's shape, in float64.

    Raises:
        InputError: a network without weights to prune, a recurrent one, one that does not take inputs of this shape,
            whose outputs depend on no weight (a softmax at its end), or that overflows even so; or masks of other
            shapes.
    """
    found = _Flow(model, tuple(shape)).scores(None if masks is None else Masks(masks))
    if masks is None:
        _refuse_no_flow(found)
    return found


class _Flow:
    """A copy of the network in float64 with absolute values, to be scored again and again."""

    def __init__(self, model: nn.Module, shape: tuple[int, ...], *, whole: bool = False) -> None:
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            raise InputError("synaptic flow is defined for feed-forward networks; this one has recurrent layers")
        self._network = copied(getattr(model, "_orig_mod", model)).double().eval().requires_grad_(False)
        with torch.no_grad():
            for value in (*self._network.parameters(), *self._network.buffers()):
                if value.is_floating_point():
                    value.abs_()
        self._weights = prunable(self._network)
        self._absolute = {name: weight.detach().clone() for name, weight in self._weights.items()}
        for weight in self._weights.values():
            weight.requires_grad_()
        place = next(iter(self._weights.values())).device
        self._input = torch.ones((1, *shape), dtype=torch.int64 if whole else torch.float64, device=place)
        self._scale = 1.0
        self.linearized: tuple[str, ...] = ()

    def scores(self, masks: Masks | None) -> dict[str, Tensor]:
        kept = {} if masks is None else {name: mask for name, (_, mask) in masks.within(self._network).items()}
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(self._absolute[name])
                if name in kept:
                    weight.masked_fill_(~kept[name], 0)
        found = self._once()
        if self._scale == 1 and not _finite(found):
            self._shrink()
            found = self._once()
        if not _finite(found):
            raise InputError("the synaptic flow overflows even in float64: check the initialization")
        return found

    def _once(self) -> dict[str, Tensor]:
        with torch.enable_grad(), Positive() as positive:
            try:
                outputs = self._network(self._input)
            except RuntimeError as error:
                shape = tuple(self._input.shape[1:])
                raise InputError(f"the network does not take inputs of shape {shape}: {error}") from error
        self.linearized = tuple(positive.linearized)
        if not outputs.requires_grad:
            return {name: torch.zeros_like(weight) for name, weight in self._weights.items()}
        start = torch.full_like(outputs, self._scale)
        slopes = torch.autograd.grad(outputs, list(self._weights.values()), start, allow_unused=True)
        return {
            name: torch.zeros_like(weight) if slope is None else weight.detach() * slope
            for (name, weight), slope in zip(self._weights.items(), slopes, strict=True)
        }

    @torch.no_grad()
    def _shrink(self) -> None:
        """Start smaller, forwards and backwards: input and biases, and the derivative of R by the outputs.

        Since the network is positively homogeneous in input and biases together, every score is scaled alike, also
        where layers are skipped; scaling weights would change what passes a layer against what skips it.
        """
        self._scale = _SMALL
        if not self._input.is_floating_point():
            return
        self._input = self._input * _SMALL
        for name, value in (*self._network.named_parameters(), *self._network.named_buffers()):
            if name.rpartition(".")[2].startswith("bias") or name.endswith("running_mean"):
                value.mul_(_SMALL)


def layer_collapse(masks: Mapping[str, Tensor]) -> xarray.Dataset:
    """What masks leave of every layer, and whether one is empty, so that nothing passes the network.

    Args:
        masks: parameter name -> {0, 1} tensor.

    Returns:
        Over `layer`: `weights`, how many there were, `kept`, and `collapsed`, true where none is. Without a dimension:
        `compression`, weights for each one kept (infinite if none is), and `max_compression`, the largest that leaves
        one weight in every layer.

    Raises:
        InputError: no masks.

    Examples:
        >>> found = layer_collapse({"a": torch.ones(3, 4), "b": torch.zeros(2, 3)})
        >>> found.collapsed.values.tolist(), float(found.compression), float(found.max_compression)
        ([False, True], 1.5, 9.0)
    """
    import numpy
    import xarray

    if not masks:
        raise InputError("there are no masks to look at")
    checked = Masks(masks)
    kept = numpy.array(list(checked.counts.values()))
    weights = numpy.array([mask.numel() for mask in checked.values()])
    return xarray.Dataset(
        {
            "weights": ("layer", weights),
            "kept": ("layer", kept),
            "collapsed": ("layer", kept == 0),
            "compression": weights.sum() / kept.sum() if kept.sum() else math.inf,
            "max_compression": weights.sum() / len(weights),
        },
        {"layer": list(checked)},
    )


def saliency_conservation(model: nn.Module, scores: Mapping[str, Tensor]) -> xarray.Dataset:
    """How well scores are conserved through the layers and the units of a chain of layers.

    Scores of the form w dL/dw, signed, of any function L of a network's outputs: if its activations are positively
    homogeneous, those of the weights into a hidden unit, and of its bias, sum to those of the weights out of it, and
    without biases the sums of all layers are equal (Tanaka, Kunin, Yamins and Ganguli, NeurIPS 2020, theorems 1 and 2).
    So in a layer of many weights each has a small score. `synflow_scores` are of this form, too; absolute values of
    signed scores, as SNIP takes, are conserved only roughly.

    Args:
        model: the network, whose layers stand in the order in which they are called.
        scores: parameter name -> scores of its shape: of every layer's weights, and of biases if there are any.

    Returns:
        Over `layer`, by the name of its weight: `total`, the sum of the weights' scores; `bias`, that of its bias's;
        `unit_error`, between what goes into its units and what goes out of them to the next layer: the largest
        difference, relative to the largest sum. NaN where the next layer does not read these units one by one (after
        the last one, in groups).

    Raises:
        InputError: scores of other names or shapes than the network's parameters, or of no weight.
    """
    import xarray

    names = list(prunable(model))
    parameters = {name.replace("_orig_mod.", ""): each for name, each in model.named_parameters(remove_duplicate=False)}
    for name, score in scores.items():
        if name not in parameters or parameters[name].shape != score.shape:
            raise InputError(f"the model has no parameter {name!r} of shape {tuple(score.shape)}")
    layers = [name for name in names if name in scores]
    if not layers:
        raise InputError(f"there are scores of none of the weights {', '.join(names[:8])}")
    values = {name: score.detach().double() for name, score in scores.items()}
    biases = {name: values.get(f"{name.removesuffix('weight')}bias") for name in layers}
    errors = []
    for number, name in enumerate(layers):
        into, out = values[name].flatten(1).sum(1), None
        bias = biases[name]
        if bias is not None and bias.shape == into.shape:
            into = into + bias
        if number + 1 < len(layers):
            out = _by_unit(values[layers[number + 1]], len(into))
        largest = 0.0 if out is None else float(torch.maximum(into.abs().max(), out.abs().max()))
        errors.append(math.nan if out is None or largest == 0 else float((into - out).abs().max()) / largest)
    return xarray.Dataset(
        {
            "total": ("layer", [float(values[name].sum()) for name in layers]),
            "bias": ("layer", [0.0 if (bias := biases[name]) is None else float(bias.sum()) for name in layers]),
            "unit_error": ("layer", errors),
        },
        {"layer": layers},
    )


def _by_unit(score: Tensor, units: int) -> Tensor | None:
    """Sums over the weights that read each of the units; a flattened image has several inputs a unit."""
    inputs = score.shape[1]
    if inputs % units:
        return None
    return score.transpose(0, 1).reshape(units, -1).sum(1)


def _first_input(data: Data) -> Tensor:
    for x, _ in batches(data, 1):
        return x
    raise InputError("the loader gave no batches to read the shape of an input off")


def _refuse_no_flow(scores: Mapping[str, Tensor]) -> None:
    if not any(bool(score.any()) for score in scores.values()):
        raise InputError("no weight changes the outputs: does the network end in a softmax, or is a layer zero?")


def _finite(scores: Mapping[str, Tensor]) -> bool:
    return all(bool(score.isfinite().all()) for score in scores.values())
