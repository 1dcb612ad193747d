"""Projected gradient ascent on the loss, inside a ball around each example."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.guard import unchanged
from ...core.random import seeded
from .balls import NORMS, Clip, project, random_start, steepest
from .losses import per_example

_ROWS, _NUMBERS = 1024, 2**22  # examples, and their numbers, attacked at a time


def pgd(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "inf",
    steps: int = 20,
    step_size: float | None = None,
    restarts: int = 1,
    targeted: bool = False,
    loss: str | Callable[[Tensor, Tensor], Tensor] = "ce",
    clip: Clip = None,
    random_start: bool = True,
    training: bool = False,
    generator: torch.Generator | int | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Adversarial examples by projected gradient ascent (Madry, Makelov, Schmidt, Tsipras and Vladu, ICLR 2018, eq. 3).

    From a random point of the ball, `d <- project(d + a step)` with `step` the unit step of steepest ascent in the
    norm: the gradient's sign for "inf", its direction for "2", its largest coordinate for "1". After every step `x + d`
    is cut to `clip`. The gradient is that of each example's own loss, so that no example depends on its batch. Of
    several restarts each example keeps a point that is misclassified, and among equals the one of largest loss.

    It works inside `torch.func.vmap` as well, as in the objective of a fleet: there `generator` must stay `None`, and
    the network must not keep running statistics, as batch norm does.

    Args:
        model: from a batch to scores (N, C). A module is left as it was; another callable runs as it is.
        x: examples (N, ...).
        y: their labels (N,), or the classes wanted if `targeted`.
        eps: radius of the ball.
        norm: "inf", "2" or "1", over all axes of an example.
        steps: how many.
        step_size: `2.5 eps / steps` by default.
        restarts: how often to begin anew.
        targeted: go down the loss of the classes wanted.
        loss: "ce", "margin" (the largest other score minus the label's own), or `loss_fn(outputs, y)`, a mean.
        clip: the range of the data, as `Split.range`, if it has one.
        random_start: whether to begin at a random point of the ball instead of its center.
        training: whether a module is attacked in training mode; its buffers, such as running statistics, stay.
        generator: what draws the starts.
        chunk: examples at a time; in training mode all at once, because batch statistics depend on it.

    Returns:
        Adversarial examples (N, ...), detached.

    Raises:
        InputError: an unknown norm or loss, a negative radius, no restart, labels that do not match, or examples
            outside `clip`.

    Examples:
        >>> flat = torch.nn.Linear(2, 2, bias=False)
        >>> flat.weight.data = torch.tensor([[1.0, -2.0], [0.0, 0.0]])
        >>> pgd(flat, torch.zeros(1, 2), torch.tensor([0]), eps=0.5, generator=0)
        tensor([[-0.5000,  0.5000]])
    """
    check(x, y, eps=eps, norm=norm, clip=clip)
    if restarts < 1 or steps < 0:
        raise InputError(f"an attack takes at least 1 restart and 0 steps, not {restarts} and {steps}")
    values = per_example(loss)
    sign = -1.0 if targeted else 1.0
    draws = None if generator is None else seeded(generator, x.device)

    def height(outputs: Tensor, y: Tensor) -> Tensor:
        return sign * values(outputs, y)

    with attacked(model, training=training):
        best = score = None
        for _ in range(restarts):
            start = _start(x, eps=eps, norm=norm, random=random_start, generator=draws)
            x_adv = ascend(
                model, x, y, start, eps=eps, norm=norm, steps=steps, step_size=step_size, height=height, clip=clip,
                chunk=len(x) if training else chunk,
            )  # fmt: skip
            if restarts == 1:
                return x_adv
            outputs = forward(model, x_adv, chunk=len(x) if training else chunk)
            hit = (outputs.argmax(1) == y) if targeted else (outputs.argmax(1) != y)
            # an example counts as more than any loss once the attack has hit it
            now = torch.stack([hit.to(outputs.dtype), height(outputs, y).nan_to_num(-torch.inf)])
            if best is None or score is None:
                best, score = x_adv, now
                continue
            better = (now[0] > score[0]) | ((now[0] == score[0]) & (now[1] > score[1]))
            best = torch.where(better.reshape(-1, *[1] * (x.ndim - 1)), x_adv, best)
            score = torch.where(better, now, score)
    assert best is not None
    return best


def ascend(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    delta: Tensor,
    *,
    eps: float,
    norm: str,
    steps: int,
    height: Callable[[Tensor, Tensor], Tensor],
    step_size: float | None = None,
    clip: Clip = None,
    chunk: int | None = None,
) -> Tensor:
    """Go up `height(outputs, y)`, one value for each example, from `x + delta`; `y` has one row for each example."""
    rate = 2.5 * eps / max(steps, 1) if step_size is None else step_size
    parts = []
    size = chunk or rows_at_once(x)
    for rows, labels, moved in zip(x.split(size), y.split(size), delta.split(size), strict=True):
        at = _clipped(rows + moved, clip)
        for _ in range(steps):
            slope = _slope(lambda z, labels=labels: height(model(z), labels).sum(), at)  # type: ignore[misc]
            step = rate * steepest(slope, at, norm=norm, clip=clip)
            at = _clipped(rows + project(at + step - rows, eps=eps, norm=norm), clip)
        parts.append(at.detach())
    return torch.cat(parts)


def forward(model: Callable[[Tensor], Tensor], x: Tensor, *, chunk: int | None = None) -> Tensor:
    """Scores without gradients, in chunks."""
    with torch.no_grad():
        return torch.cat([model(rows) for rows in x.split(chunk or rows_at_once(x))])


def rows_at_once(x: Tensor) -> int:
    """How many examples of this size to attack at a time: about 1000 small ones or 28 of ImageNet's."""
    return min(_ROWS, max(1, _NUMBERS // max(1, x[:1].numel())))


@contextmanager
def attacked(model: Callable[[Tensor], Tensor], *, training: bool = False) -> Iterator[None]:
    """A module meanwhile runs in the mode asked for and collects no gradients; another callable is left alone."""
    if not isinstance(model, nn.Module):
        yield
        return
    parameters = [p for p in model.parameters() if p.requires_grad]
    with unchanged(model):
        model.train(training)
        try:
            for parameter in parameters:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)


def check(x: Tensor, y: Tensor, *, eps: float, norm: str, clip: Clip) -> None:
    """Refuse what no attack can work with."""
    if norm not in NORMS:
        raise InputError(f"there is no norm {norm!r} here; norms are {', '.join(map(repr, NORMS))}")
    if not eps >= 0:
        raise InputError(f"eps must be at least 0, not {eps}")
    if not x.is_floating_point():
        raise InputError(f"examples must be of a floating-point type to be attacked, not {x.dtype}")
    if y.shape != x.shape[:1]:
        raise InputError(f"y needs one label for each of the {len(x)} examples; its shape is {tuple(y.shape)}")
    if clip is None:
        return
    if not clip[0] < clip[1]:
        raise InputError(f"clip must be (low, high) with low below high, not {clip}")
    if not inside_transform():
        low, high = x.aminmax()
        slack = 1e-4 * (clip[1] - clip[0])
        if low < clip[0] - slack or high > clip[1] + slack:
            raise InputError(
                f"x lies in [{low:.4g}, {high:.4g}], outside clip={clip}: give the range that these data have, "
                "as Split.range"
            )


def inside_transform() -> bool:
    """Whether this runs inside `torch.func.vmap` or `grad`, where autograd's own calls are closed."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _slope(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient at a point, without a graph to differentiate again."""
    if inside_transform():
        try:
            with torch.no_grad():  # that is outside: `grad` still differentiates, and nothing else does
                return torch.func.grad(function)(x)
        except RuntimeError as error:
            if "mutate a captured Tensor" not in str(error):
                raise
            raise InputError(
                "inside a fleet a network with running statistics cannot be attacked: train each alone with train.fit, "
                "or use another norm than batch norm"
            ) from error
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        return torch.autograd.grad(function(at), at)[0]


def _start(x: Tensor, *, eps: float, norm: str, random: bool, generator: torch.Generator | None) -> Tensor:
    return random_start(x, eps=eps, norm=norm, generator=generator) if random else torch.zeros_like(x)


def _clipped(x: Tensor, clip: Clip) -> Tensor:
    return x if clip is None else x.clamp(*clip)
