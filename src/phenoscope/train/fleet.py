"""Train many networks of one architecture as one: `fleet`, and `Fleet`, the networks."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from ..core.errors import InputError
from ..core.random import child_seeds, seeded
from .build import build
from .feed import Feed, pairs_of
from .fit import check_length
from .fleet_steps import Part, Steps, in_parts
from .holding import stacked_masks
from .members import Fleet
from .outputs import in_mode
from .schedule import Schedule
from .states import States
from .threads import side_by_side
from .updates import Recipe, by_member, read
from .watch import Due, Seen, Watch

if TYPE_CHECKING:
    import xarray

_SECONDS_BETWEEN_REPORTS = 0.5

Rates = float | Sequence[float] | Tensor


def fleet(
    networks: Callable[..., nn.Module] | Sequence[nn.Module] | Fleet,
    data: Any,
    *,
    members: int | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    lr: Rates | None = None,
    weight_decay: Rates | None = None,
    loss_fn: Callable[[Any, Any], Tensor] = functional.cross_entropy,
    objective: Callable[..., Tensor] | None = None,
    batch_size: int | None = 64,
    schedule: Schedule | None = None,
    masks: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor] | None] | None = None,
    labels: Tensor | None = None,
    rows: Any = None,
    watch: Watch | None = None,
    states: States | None = None,
    generator: torch.Generator | int | Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[int, int, float], object] | None = None,
) -> Fleet:
    """Train many networks of one architecture as one batched program.

    Member `i` after any number of steps is what `fit(build(networks, generator=seed_i), data, generator=seed_i)` makes,
    up to the rounding of sums taken in another order; dropout alone draws other numbers than `fit` does. The same call
    on the same machine gives the same bits.

    A tree of `nn.Sequential` of common layers runs as batched products. Any other network runs under `torch.func.vmap`:
    its forward pass must not branch on values.

    A fleet pays while one network leaves the machine idle between its operations. On two CPU cores, at batch 128, it is
    many times as fast as a loop of `fit` for perceptrons of width 16, a few times for width 64, and not twice as fast
    from width 256 on or for convolutions on images of 28x28: `benchmarks/fleet.py` says how much on a given machine.
    On CPU, the more memory a member takes the fewer are computed together, in the end each alone, as a loop does: such
    a fleet is about as fast as the loop.

    Args:
        networks: a network factory, called by `build` once a member; or the networks; or a fleet. Networks that are
            given stay as they are: copies are trained.
        data: a pair of tensors `(x, y)`, a loader or a data set for all members; or a sequence of one pair of tensors
            each, of equal shapes.
        members: how many, where `networks` is a factory.
        steps: how many updates to make; or
        epochs: how often to go through the data. Exactly one of the two.
        optimizer: what makes SGD, Adam, AdamW or RMSprop of parameters: `functools.partial(torch.optim.SGD, lr=0.1)`.
        lr: in place of the optimizer's learning rate, for all or one a member.
        weight_decay: in place of the optimizer's, for all or one a member.
        loss_fn: from outputs and labels to their mean loss.
        objective: `objective(model, x, y)` gives the loss in place of `loss_fn`, under `torch.func.vmap`; `model` is a
            callable. Inner gradients are taken by `torch.func.grad`, random numbers by torch without a generator.
        batch_size: examples in a batch of each member; `None` takes all, in order, at every step.
        schedule: of the learning rate: a function from the step, from 0, to a factor on it, as `cosine` makes.
        masks: parameter name -> {0, 1} tensor, for all or one such mapping a member (`None` keeps all weights): on the
            weights from the start, on their gradients before and on the weights after every step.
        labels: labels (members, N) in place of `y`.
        rows: indices (members, n) of the examples that each member trains on.
        watch: functions of a member to call at chosen steps.
        states: at which steps to keep the states of all members.
        generator: seeds of the members: one sequence of integers, or what they are drawn from. A member's seed
            initializes it, where `networks` is a factory, and shuffles its data.
        shape: of one example, for the factory; by default that of the data.
        num_classes: for the factory; by default one more than the highest label, where labels are integers.
        device: where new networks go, by default CUDA if there is one; given networks stay where they are.
        progress: called as `progress(step, steps, loss)`, with the mean loss of all members, every half second at
            most and after the last step.

    Returns:
        The trained networks.

    Raises:
        InputError: settings that contradict each other or the number of members, an optimizer that a fleet cannot
            follow, or networks of different architectures.
    """
    check_length(steps, epochs)
    if batch_size is not None and batch_size < 1:
        raise InputError(f"a batch has at least 1 example, not {batch_size}")
    if schedule is not None and not callable(schedule):
        raise InputError("a fleet's schedule is a function of the step, such as train.cosine(steps)")
    data = pairs_of(data)
    count = _members(networks, members, generator)
    seeds = _seeds(generator, count)
    if not isinstance(networks, Fleet):
        if callable(networks) and not isinstance(networks, nn.Module):
            shape, num_classes = _described(data, labels, shape, num_classes)
            made = [build(networks, shape=shape, num_classes=num_classes, generator=seed) for seed in seeds]
            place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            trained = Fleet.of([network.to(place) for network in made])
        else:
            trained = Fleet.of(list(networks))  # type: ignore[arg-type]
    else:
        trained = networks.copy()
    feed = Feed(data, count, labels=labels, rows=rows, device=trained.device, dtype=trained.dtype)
    recipe = read(optimizer, trained.program.network)
    total = steps if steps is not None else epochs * feed.count(batch_size)  # type: ignore[operator]
    if loss_fn is functional.cross_entropy and not feed.y.is_floating_point() and int(feed.y.min()) < 0:
        loss_fn = nn.CrossEntropyLoss()  # which leaves examples labeled -100 out of its mean
    # an objective may call the network on anything: what it takes is not known
    each = 0 if objective is not None else trained.program.activation_bytes(feed.first(batch_size))
    threads = _threads(trained, loss_fn, objective)
    parts = in_parts(_whole(trained, recipe, lr, weight_decay, masks), each, threads)
    stepper = Steps(trained.program, recipe, parts, loss_fn, objective)
    seen = None if watch is None else Seen(watch, axes=("member",))
    look_due = Due(() if watch is None else watch.at, "watch", total)
    trained.states = States(at=()) if states is None else states.empty()
    keep_due = Due(trained.states.at, "states", total)

    def look(step: int) -> None:
        if seen and look_due(step, last=step == total):
            seen.look(step, functools.partial(trained.map, batched=seen.watch.batched))
        if keep_due(step, last=step == total):
            trained.states.keep(step, trained.state_dict())

    losses: list[Tensor] = []
    report_at = time.monotonic() + _SECONDS_BETWEEN_REPORTS
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    cuda = [trained.device] if trained.device.type == "cuda" else []
    mode, drawing = in_mode(trained.program.network, training=True), torch.random.fork_rng(devices=cuda)
    with mode, drawing, side_by_side(min(threads, len(parts))) as across:
        torch.manual_seed(child_seeds(sum(seeds) % 2**62, 1)[0])
        look(0)
        for step, batch in enumerate(feed.epochs(batch_size, generators), 1):
            losses.append(stepper(batch, 1.0 if schedule is None else schedule(step - 1), across))
            look(step)
            if progress and (step == total or time.monotonic() >= report_at):
                progress(step, total, losses[-1].mean().item())
                report_at = time.monotonic() + _SECONDS_BETWEEN_REPORTS
            if step == total:
                break
    trained.history = _history(losses)
    if seen:
        trained.watched = seen.dataset()
    return trained


def _members(networks: Any, members: int | None, generator: Any) -> int:
    """How many members there are, asked from everything that says so."""
    told = {}
    if isinstance(networks, nn.Module):
        raise InputError("a fleet needs a network factory or a sequence of networks, not one network")
    if isinstance(networks, (Fleet, Sequence)):
        told["networks"] = len(networks)
    elif not callable(networks):
        raise InputError(
            f"networks must be a factory, a sequence of networks or a fleet, not {type(networks).__name__}"
        )
    if members is not None:
        told["members"] = members
    if isinstance(generator, Sequence):
        told["generator"] = len(generator)
    if not told:
        raise InputError("say how many networks to make: members=")
    if len(set(told.values())) > 1:
        raise InputError("these differ: " + ", ".join(f"{name} says {n} members" for name, n in told.items()))
    count = next(iter(told.values()))
    if count < 1:
        raise InputError(f"a fleet has at least 1 member, not {count}")
    return count


def _seeds(generator: Any, members: int) -> list[int]:
    if isinstance(generator, Sequence):
        return [int(seed) for seed in generator]
    return child_seeds(seeded(generator), members)


def _described(
    data: Any, labels: Tensor | None, shape: Sequence[int] | None, num_classes: int | None
) -> tuple[Sequence[int] | None, int | None]:
    """The shape of an example and the number of classes, taken from the data where they are not given."""
    pairs = [data] if isinstance(data[0], Tensor) else data
    if shape is None:
        shape = tuple(pairs[0][0].shape[1:])
    given = [torch.as_tensor(labels)] if labels is not None else [y for _, y in pairs]
    if num_classes is None and all(not y.is_floating_point() and y.numel() for y in given):
        num_classes = int(max(y.max() for y in given)) + 1
    return shape, num_classes


def _threads(trained: Fleet, loss_fn: Any, objective: Any) -> int:
    """In how many threads parts may be trained: code that is not known may draw, and the order would be chance."""
    known = trained.program.steps is not None and objective is None
    known = known and loss_fn in (functional.cross_entropy, functional.mse_loss)
    draws = any(isinstance(module, nn.Dropout) for module in trained.template.modules())
    return torch.get_num_threads() if known and not draws and trained.device.type == "cpu" else 1


def _whole(trained: Fleet, recipe: Recipe, lr: Any, weight_decay: Any, masks: Any) -> Part:
    """All members, their masks on their weights."""
    members = len(trained)
    names = frozenset(
        name for name, p in trained.program.network.named_parameters() if p.requires_grad and name in recipe.settings
    )
    rate, decay = by_member(lr, members, "lr"), by_member(weight_decay, members, "weight_decay")
    held = {} if masks is None else stacked_masks(masks, trained.program.network, members)
    with torch.no_grad():
        for name, mask in held.items():
            trained.parameters[name].mul_(mask)
    rates = {name: float(recipe.settings[name]["lr"]) if rate is None else rate for name in names}
    decays = {name: float(recipe.settings[name]["weight_decay"]) if decay is None else decay for name in names}
    return Part(trained.parameters, trained.buffers, held, rates, decays, names, 0, members)


def _history(losses: list[Tensor]) -> xarray.Dataset:
    import numpy
    import xarray

    values = torch.stack(losses).double().cpu().numpy()
    coordinates = {"step": numpy.arange(1, len(values) + 1), "member": numpy.arange(values.shape[1])}
    return xarray.Dataset({"loss": (("step", "member"), values)}, coordinates)
