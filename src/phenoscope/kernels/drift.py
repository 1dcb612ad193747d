"""How far the tangent kernel moves while a network trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..core.errors import InputError
from ..core.guard import unchanged
from .empirical import Outputs, empirical_ntk

if TYPE_CHECKING:
    import xarray


def ntk_drift(
    model: nn.Module, states: Mapping[int, Mapping[str, Tensor]], x: Tensor, *, outputs: Outputs = "full"
) -> xarray.Dataset:
    """The relative change |Theta_t - Theta_0|_F / |Theta_0|_F of the tangent kernel over saved states.

    In the limit of infinite width the kernel stands still (Jacot, Gabriel and Hongler, NeurIPS 2018, theorem 2).

    Args:
        model: the network that the states belong to; evaluated in evaluation mode and left as it was found.
        states: step -> state_dict, as `train.States`; the lowest step is the one compared with.
        x: inputs.
        outputs: of `empirical_ntk`.

    Returns:
        `drift` and `norm`, |Theta_t|_F, over `step`.

    Raises:
        InputError: no states, or states of another network.
    """
    import numpy
    import xarray

    steps = sorted(states)
    if not steps:
        raise InputError("there are no states to compare")
    found = [_at(model, states[step], x, outputs).double() for step in steps]
    size = found[0].norm()
    values = {
        "drift": [float((kernel - found[0]).norm() / size) for kernel in found],
        "norm": [float(kernel.norm()) for kernel in found],
    }
    return xarray.Dataset({name: ("step", numpy.array(v)) for name, v in values.items()}, {"step": steps})


def _at(model: nn.Module, state: Mapping[str, Tensor], x: Tensor, outputs: Outputs) -> Tensor:
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    with unchanged(model):
        model.eval()
        try:
            model.load_state_dict(dict(state))
            return empirical_ntk(model, x, outputs=outputs)
        except RuntimeError as error:
            if "state_dict" not in str(error):
                raise
            raise InputError(f"the states are not of this network: {str(error).splitlines()[-1].strip()}") from None
        finally:
            model.load_state_dict(before)
