"""Make the layers of a pruned network orthogonal again, as far as the weights that are left allow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..models.masks import Masks
from .imp import Ticket

if TYPE_CHECKING:
    import xarray

_LOOK = 20  # steps between looks at whether the error still falls


def enforce_isometry(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    *,
    gain: float = 1.0,
    steps: int = 1000,
    lr: float = 0.01,
    tolerance: float = 1e-6,
) -> Ticket:
    """Move the weights that a mask keeps so that every layer passes signals evenly (Lee et al., ICLR 2020, section 5).

    Lee, Ajanthan, Gould and Torr, "A Signal Propagation Perspective for Pruning Neural Networks at Initialization":
    for each layer the squared Frobenius norm of A A^T - gain^2 I is minimized, where A is the masked weight as a matrix
    (outputs, inputs), its transpose if it has fewer columns than rows; a convolution's inputs are those of all taps,
    and groups count one by one. It starts from the weights as they are, takes neither data nor signs anew, and changes
    nothing else. Adam takes the steps, its rate falling to zero by half a cosine, and the best ones are kept; the paper
    descends on the norm itself, which is smallest in the same place. Layers are done one after another.

    Args:
        model: the network at the weights that were pruned; left as it was found.
        masks: parameter name -> {0, 1} tensor, as a pruner gives them. Parameters that they do not name stay.
        gain: what the singular values of a layer should be: 1 for tanh and linear networks, sqrt(2) for ReLU.
        steps: at most, for each layer.
        lr: of Adam, at the start.
        tolerance: a layer is done when its error falls by less than this share in 20 steps.

    Returns:
        An untrained ticket: the masks, and the state with the weights moved; weights that are not kept are zero in it.
        `isometry_error` says how far each layer is from its aim, before and after.

    Raises:
        InputError: a setting out of range, or masks that do not belong to the network.

    Examples:
        >>> net = nn.Linear(30, 30)
        >>> masks = Masks({"weight": torch.rand(30, 30) < 0.5})
        >>> ticket = enforce_isometry(net, masks)
        >>> before, after = (isometry_error(each, masks).error.item() for each in (net, ticket.network(net)))
        >>> after < before
        True
    """
    if steps < 0 or not 0 < lr < math.inf or not 0 < gain < math.inf or not tolerance >= 0:
        raise InputError(
            f"steps and tolerance are at least 0, lr and gain positive, not {steps}, {tolerance}, {lr} and {gain}"
        )
    masks = Masks(masks)
    live = model.state_dict(keep_vars=True)
    state = {name: value.detach().clone() for name, value in live.items()}
    for name, (weight, mask) in masks.within(model).items():
        _matrix(weight, 1, name)
        with torch.no_grad():
            moved = _descended(weight.detach(), mask, _groups(model, name), gain, steps, lr, tolerance)
        state |= {key: moved for key, value in live.items() if value is weight}  # a shared weight has several names
    return Ticket(masks, state, masks.density)


def isometry_error(model: nn.Module, masks: Mapping[str, Tensor] | None = None, *, gain: float = 1.0) -> xarray.Dataset:
    """How far each layer is from passing signals evenly: what `enforce_isometry` makes small.

    Args:
        model: the network; left as it was found.
        masks: parameter name -> {0, 1} tensor: the layers to look at and what is kept of them; all of them whole, if
            `None`.
        gain: what the singular values of a layer should be.

    Returns:
        Over `layer`: `error`, the Frobenius norm of A A^T - gain^2 I, without the rows of A that the mask empties;
        `dead`, how many these are: units that nothing passes, whatever the other weights; `rows`, of A.

    Raises:
        InputError: masks that do not belong to the network, or of a parameter with one dimension.
    """
    import xarray

    chosen = Masks.ones(model) if masks is None else Masks(masks)
    errors, dead, rows = [], [], []
    for name, (weight, mask) in chosen.within(model).items():
        groups = _groups(model, name)
        kept = _matrix(mask, groups, name)
        matrix = _matrix(weight.detach(), groups, name) * kept
        alive = kept.any(2)
        errors.append(float(_residual(matrix.double(), alive, gain).square().sum().sqrt()))
        dead.append(int((~alive).sum()))
        rows.append(alive.numel())
    return xarray.Dataset(
        {"error": ("layer", errors), "dead": ("layer", dead), "rows": ("layer", rows)}, {"layer": list(chosen)}
    )


def _descended(
    weight: Tensor, mask: Tensor, groups: int, gain: float, steps: int, lr: float, tolerance: float
) -> Tensor:
    """The weight after descent, zero off the mask."""
    kept = _matrix(mask, groups, "")
    wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
    matrix = _matrix(weight.masked_fill(~mask, 0), groups, "").to(wide).contiguous()
    alive = kept.any(2)
    scale = gain**2 * math.sqrt(max(1, int(alive.sum())))  # the error of a layer of zeros
    optimizer = torch.optim.Adam([matrix], lr=lr)
    best, least, last = matrix.clone(), math.inf, math.inf
    for step in range(steps + 1):
        residual = _residual(matrix, alive, gain)
        error = float(residual.norm())
        if error < least:
            best, least = matrix.clone(), error
        if step % _LOOK == 0:
            if least <= 1e-6 * scale or last - least < tolerance * last:  # float32 knows no better
                break
            last = least
        optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / max(1, steps))) / 2
        matrix.grad = _slope(matrix, residual).masked_fill_(~kept, 0)
        optimizer.step()
    return _unmatrix(best, weight, groups).to(weight.dtype)


def _residual(matrix: Tensor, alive: Tensor, gain: float) -> Tensor:
    """A A^T - gain^2 I of each group; rows without weights count as what they should be."""
    return matrix @ matrix.mT - gain**2 * torch.diag_embed(alive.to(matrix.dtype))


def _slope(matrix: Tensor, residual: Tensor) -> Tensor:
    """The derivative of its squared Frobenius norm by A."""
    return 4 * residual @ matrix


def _matrix(weight: Tensor, groups: int, name: str) -> Tensor:
    """(groups, smaller, larger of the two sides) of a weight, which may be a mask."""
    if weight.ndim < 2:
        raise InputError(f"{name!r} has one dimension and is no matrix to make orthogonal")
    found = weight.flatten(1).unflatten(0, (groups, -1))
    return found if found.shape[1] <= found.shape[2] else found.mT


def _unmatrix(matrix: Tensor, weight: Tensor, groups: int) -> Tensor:
    whole = weight.flatten(1).unflatten(0, (groups, -1))
    return (matrix if whole.shape[1] <= whole.shape[2] else matrix.mT).reshape(weight.shape)


def _groups(model: nn.Module, name: str) -> int:
    owner = name.rpartition(".")[0]
    module = dict(getattr(model, "_orig_mod", model).named_modules()).get(owner)
    return int(getattr(module, "groups", 1))
