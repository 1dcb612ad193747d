"""Neural tangent transfer: without labels, a sparse network learns to have a dense one's tangent kernel."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from ..core.errors import InputError
from ..core.gradients import per_example_only
from ..core.parameters import call, parameter_dict
from ..core.random import child_seeds, seeded
from ..data.batches import Data, batches
from ..kernels import empirical_ntk
from ..models.masks import Masks, prunable
from ..train.outputs import placed
from .imp import Ticket
from .scores import Scope, keep_top

_FULL = 10  # up to so many outputs the kernel is taken between all of them


def ntt(
    model: nn.Module,
    data: Tensor | Data,
    *,
    density: float,
    steps: int = 1000,
    batch_size: int = 64,
    lr: float = 1e-3,
    lam_kernel: float = 1e-3,
    lam_l2: float = 1e-5,
    update_every: int = 100,
    scope: Scope = "layer",
    masked_jacobian: bool = True,
    outputs: Literal["full", "sum", "random"] | None = None,
    generator: torch.Generator | int | None = None,
) -> Ticket:
    """Find a sparse network whose outputs and tangent kernel are those of the dense one (Liu and Zenke, ICML 2020).

    The teacher f(x; w0) is the network as it stands. The student's weights are w = m v, with v = w0 at first and m the
    largest |v|. On batches of two halves x1, x2, without labels, Adam changes v and the biases so that

        L = D_f + lam_kernel D_K + lam_l2 / density |m v|^2

    falls, with D_f the mean of (f(x; w) - f(x; w0))^2 over examples and outputs, and D_K the mean of the squared
    differences between the entries of Theta(x1, x2; w) and Theta(x1, x2; w0), the tangent kernels of
    `kernels.empirical_ntk` over all parameters. From time to time the mask is chosen anew from |v|, which stays dense
    beneath it. Networks are in evaluation mode.

    Args:
        model: the network at its initialization; left as it was found.
        data: inputs, a pair `(x, y)` or a loader; labels are not looked at.
        density: the share of weights to keep.
        steps: updates.
        batch_size: examples in a batch, where the data are tensors; an odd one out is left aside.
        lr: Adam's learning rate.
        lam_kernel: weight of the kernel's distance.
        lam_l2: weight of the squared norm of the weights that are left.
        update_every: after how many updates the mask is chosen anew; not in the last so many.
        scope: whether weights compete within their layer, as in the paper, or all with each other.
        masked_jacobian: whether derivatives with respect to pruned weights are left out of the student's kernel, as
            they are of its training; the authors' code leaves them in.
        outputs: "full" takes kernels between all outputs, (B/2, B/2, C, C); "sum" and "random" those of one
            combination of them, of their sum or with a random sign for each (drawn for every batch), (B/2, B/2). If
            nothing is said, "full" for up to 10 outputs, else "random".
        generator: what shuffles the data and draws signs.

    Returns:
        A ticket, whose training starts from m v; `history` has `loss`, `kernel_distance` and `output_distance` of every
        batch before its update.

    Raises:
        InputError: a density outside (0, 1], no steps, batches of fewer than two examples, a batch norm without running
            statistics, a network without weights to prune or with outputs that are no scores (N, C), or what `batches`
            refuses.
    """
    import numpy
    import xarray

    if not 0 < density <= 1:
        raise InputError(f"density is the share of weights to keep, above 0 and at most 1, not {density!r}")
    if steps < 1 or update_every < 1 or batch_size < 2:
        raise InputError("ntt needs at least one step, update_every of at least 1 and batches of at least two examples")
    if outputs not in (None, "full", "sum", "random"):
        raise InputError(f"outputs must be 'full', 'sum' or 'random', not {outputs!r}")
    teacher = copy.deepcopy(model).eval()
    per_example_only(teacher)
    clean = {id(weight): name for name, weight in prunable(teacher).items()}
    names = {name: clean[id(p)] for name, p in teacher.named_parameters() if id(p) in clean}
    values = {name: value.clone().requires_grad_() for name, value in parameter_dict(teacher).items()}
    if lacking := names.keys() - values.keys():
        raise InputError(f"the weight {min(lacking)!r} does not require gradients: it cannot be transferred")
    optimizer = torch.optim.Adam(values.values(), lr=lr)
    order, draw = child_seeds(generator, 2)
    rng = seeded(draw)

    def largest() -> dict[str, Tensor]:
        return dict(keep_top({name: values[name].detach().abs() for name in names}, density=density, scope=scope))

    masks = largest()
    record: list[Tensor] = []
    for step, x in enumerate(_halves(data, batch_size, teacher, order, steps), start=1):
        if step > 1 and (step - 1) % update_every == 0 and steps - (step - 1) >= update_every:
            masks = largest()
        student = {name: value * masks[name] if name in masks else value for name, value in values.items()}
        with torch.no_grad():
            wanted = teacher(x)
        if wanted.ndim != 2:
            raise InputError(f"the model must give scores (N, C), not outputs of shape {tuple(wanted.shape)}")
        by = _combination(outputs, wanted, rng)
        x1, x2 = x.chunk(2)
        kernel = _distance(teacher, student, masks if masked_jacobian else {}, x1, x2, by)
        output = (call(teacher, student, x) - wanted).square().mean()
        norm = sum(student[name].square().sum() for name in names)
        loss = output + lam_kernel * kernel + lam_l2 / density * norm
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        record.append(torch.stack([loss, kernel, output]).detach())
    state = {name: value.detach().clone() for name, value in teacher.state_dict().items()}
    for name, value in values.items():
        state[name] = value.detach() * masks[name] if name in masks else value.detach().clone()
    kept = Masks({names[name]: mask for name, mask in masks.items()})
    numbers = torch.stack(record).double().cpu().numpy()
    columns = dict(zip(("loss", "kernel_distance", "output_distance"), numbers.T, strict=True))
    history = xarray.Dataset(
        {name: ("step", each) for name, each in columns.items()}, {"step": numpy.arange(1, steps + 1)}
    )
    return Ticket(kept, state, kept.density, order, history=history)


def distances(teacher: nn.Module, student: nn.Module, masks: Mapping[str, Tensor], x: Tensor) -> tuple[float, float]:
    """D_K, with the student's derivatives masked, and D_f between two networks, over all pairs and all of the inputs.

    Args:
        teacher: the dense network.
        student: one of its architecture with the masks on its weights.
        masks: parameter name -> {0, 1} tensor.
        x: inputs that neither was fitted to.
    """
    teacher, student = copy.deepcopy(teacher).eval(), copy.deepcopy(student).eval()
    with torch.no_grad():
        output = float((student(x) - teacher(x)).square().mean())
        parameters = parameter_dict(student)
        kernels = (float(_distance(teacher, parameters, masks, rows, x, None)) * len(rows) for rows in x.split(16))
        return sum(kernels) / len(x), output


def _distance(
    teacher: nn.Module, values: Mapping[str, Tensor], masks: Mapping[str, Tensor], x1: Tensor, x2: Tensor, by: Any
) -> Tensor:
    """D_K of the teacher's architecture with other values, whose derivatives by pruned weights count as zero."""
    kept = {name: mask.flatten().nonzero()[:, 0] for name, mask in masks.items()}
    theirs = parameter_dict(teacher)
    if by is None:
        with torch.no_grad():
            wanted = empirical_ntk(teacher, x1, x2)
    else:
        wanted = _kernel(_jacobians(teacher, theirs, {}, x1, by), _jacobians(teacher, theirs, {}, x2, by)).detach()
    own = _kernel(*(_jacobians(teacher, values, kept, x, by) for x in (x1, x2)))
    return (own - wanted).square().mean()


def _jacobians(
    network: nn.Module, values: Mapping[str, Tensor], kept: Mapping[str, Tensor], x: Tensor, by: Tensor | None
) -> list[Tensor]:
    """For each parameter the derivatives (N, C, entries) of the outputs; (N, 1, entries) of a combination of them."""

    def outputs(values: dict[str, Tensor], one: Tensor) -> Tensor:
        out = call(network, values, one[None]).reshape(-1)
        return out if by is None else (out @ by)[None]

    found = vmap(jacrev(outputs), in_dims=(None, 0))(dict(values), x)
    return [each.flatten(2)[:, :, kept[name]] if name in kept else each.flatten(2) for name, each in found.items()]


def _kernel(one: list[Tensor], other: list[Tensor]) -> Tensor:
    """(n1, n2, C, C)"""
    return torch.stack([torch.einsum("iap,jbp->ijab", a, b) for a, b in zip(one, other, strict=True)]).sum(0)


def _combination(outputs: str | None, like: Tensor, rng: torch.Generator) -> Tensor | None:
    count = like.shape[1]
    outputs = outputs or ("full" if count <= _FULL else "random")
    if outputs == "full":
        return None
    if outputs == "sum":
        return like.new_ones(count)
    return (torch.randint(2, (count,), generator=rng, device=rng.device) * 2 - 1).to(like)


def _halves(data: Any, size: int, model: nn.Module, seed: int, steps: int) -> Iterator[Tensor]:
    """So many batches of inputs, each of an even number of examples."""
    if isinstance(data, Tensor):
        data = (data, torch.zeros(len(data)))
    rng, done = seeded(seed), 0
    while True:
        before = done
        for batch in batches(data, size, generator=rng, shuffle=True):
            x = batch[0] if isinstance(batch, (tuple, list)) else batch
            x = placed(x[: len(x) // 2 * 2], x.new_zeros(0), model)[0]
            if not len(x):
                continue
            yield x
            done += 1
            if done == steps:
                return
        if done == before:
            raise InputError("the data give no batch of two examples: a kernel needs one of each half")
