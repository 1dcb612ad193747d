"""Which number of a network's output is explained: the same choice for every attribution."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.guard import unchanged
from ..core.taps import rows_at_once, suited

Target = int | Tensor | Callable[[Tensor], Tensor] | None
Output = str | Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Score:
    """From a network's outputs to one number an example.

    Attributes:
        classes: (N,) the class to explain of each example; `None` where `pick` chooses.
        pick: from transformed outputs (n, C) to (n,).
        output: "logit", "probability", or a function of the outputs.
    """

    classes: Tensor | None
    pick: Callable[[Tensor], Tensor] | None
    output: Output

    def __call__(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """The scores (n,) of outputs (n, C) that belong to the examples `rows` (n,)."""
        outputs = transformed(outputs, self.output)
        if self.pick is not None:
            picked = self.pick(outputs)
            if picked.shape != (len(outputs),):
                raise InputError(
                    f"target gave shape {tuple(picked.shape)} for {len(outputs)} outputs; it must give one number each"
                )
            return picked
        assert self.classes is not None
        return outputs.gather(1, self.classes[rows].to(outputs.device)[:, None])[:, 0]


def score_of(model: nn.Module, x: Tensor, target: Target, output: Output, *, chunk: int | None = None) -> Score:
    """Settle what is explained, once, at the inputs themselves.

    Args:
        model: the network, in evaluation mode.
        x: its inputs (N, ...).
        target: `None` for the class the network decides on, a class, (N,) classes, or a function from outputs (after
            `output`) to (N,).
        output: "logit" for the outputs as they are; "probability" for their softmax (of a single output, its sigmoid);
            or a function from outputs to outputs.
        chunk: inputs in a pass.

    Raises:
        InputError: a target that the outputs do not have, or outputs that are not (N, C).
    """
    if callable(target) and not isinstance(target, Tensor):
        return Score(None, target, output)
    with torch.no_grad():
        parts = [transformed(model(part), output) for part in x.split(rows_at_once(x, chunk))]
    outputs = torch.cat(parts)
    count = outputs.shape[1]
    if target is None:
        return Score(outputs.argmax(1), None, output)
    classes = torch.as_tensor(target, device=outputs.device)
    if classes.is_floating_point() or classes.dtype == torch.bool or classes.shape not in {(), (len(x),)}:
        raise InputError(
            f"target must be a class, one class for each of the {len(x)} inputs, or a function of the outputs, "
            f"not {classes.dtype} of shape {tuple(classes.shape)}"
        )
    if classes.min() < 0 or classes.max() >= count:
        raise InputError(f"target has class {int(classes.max())}, the network classes 0 to {count - 1}")
    return Score(classes.expand(len(x)), None, output)


def transformed(outputs: Any, output: Output) -> Tensor:
    """Outputs as (n, C) logits, probabilities, or whatever the function makes of them."""
    if not isinstance(outputs, Tensor):
        raise InputError(f"the network must put out one tensor of scores, not a {type(outputs).__name__}")
    if outputs.ndim == 1:
        outputs = outputs[:, None]
    if callable(output):
        outputs = output(outputs)
        outputs = outputs[:, None] if outputs.ndim == 1 else outputs
    elif output == "probability":
        outputs = outputs.softmax(1) if outputs.shape[1] > 1 else outputs.sigmoid()
    elif output != "logit":
        raise InputError(f'output must be "logit", "probability" or a function of the outputs, not {output!r}')
    if outputs.ndim != 2:
        raise InputError(f"scores must be (N, C), not {tuple(outputs.shape)}; choose among them with output=")
    return outputs


@contextmanager
def explaining(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with gradients, whatever mode the caller is in; the model is left as it was found."""
    with unchanged(model), torch.inference_mode(False), torch.enable_grad(), _backward_in_evaluation(model):
        model.eval()
        yield


@contextmanager
def _backward_in_evaluation(model: nn.Module) -> Iterator[None]:
    """Does without cuDNN where the network is recurrent: cuDNN cannot go backward in evaluation mode there."""
    cudnn = torch.backends.cudnn
    if not cudnn.enabled or not any(isinstance(module, nn.RNNBase) for module in model.modules()):
        yield
        return
    cudnn.enabled = False
    try:
        yield
    finally:
        cudnn.enabled = True


def real_input(model: nn.Module, x: Tensor, name: str = "x") -> Tensor:
    """Inputs on the model's device and in its dtype, checked: real, at least one example, no NaN.

    Raises:
        InputError: what is not so.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{name} must be a tensor of real numbers, not {kind}; explain token ids by their embedding")
    if x.ndim == 0 or x.numel() == 0:
        raise InputError(f"{name} needs at least one example; its shape is {tuple(x.shape)}")
    x = suited(model, x.detach()).clone()  # a clone made here is no inference tensor
    if x.isnan().any():
        raise InputError(f"{name} has NaN; remove or fill the examples with it")
    return x


def gradients(model: nn.Module, score: Score, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (n,) of inputs and their gradients (n, ...) with respect to these inputs."""
    leaf = x.detach().requires_grad_()
    values = score(model(leaf.clone()), rows)  # the clone lets a first layer work in place
    return values.detach(), input_gradient(values, leaf)


def input_gradient(values: Tensor, leaf: Tensor) -> Tensor:
    """The gradient of summed scores; zero where they do not depend on the inputs."""
    if not values.requires_grad:
        return torch.zeros_like(leaf)
    (gradient,) = torch.autograd.grad(values.sum(), leaf, allow_unused=True)
    return torch.zeros_like(leaf) if gradient is None else gradient
