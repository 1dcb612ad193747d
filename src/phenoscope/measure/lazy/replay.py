"""A network put through its saved states and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import Tensor, nn

from ...core.errors import InputError
from ...core.guard import unchanged

T = TypeVar("T")


def over_states(model: nn.Module, states: Mapping[int, Mapping[str, Tensor]], observe: Callable[[], T]) -> dict[int, T]:
    """What `observe()` gives in every state, step by step, with the network in evaluation mode; afterwards as before.

    Raises:
        InputError: no states, or states of another network.
    """
    if not states:
        raise InputError("there are no states to compare: train with states=train.States(at=...)")
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    found = {}
    with unchanged(model):
        model.eval()
        try:
            for step in sorted(states):
                try:
                    model.load_state_dict(dict(states[step]))
                except RuntimeError as error:
                    if "state_dict" not in str(error):
                        raise
                    last = str(error).splitlines()[-1].strip()
                    raise InputError(f"the states are not of this network: {last}") from None
                found[step] = observe()
        finally:
            model.load_state_dict(before)
    return found
