"""Ways of pruning beside each other: the same networks, the same data in the same order, several densities."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InputError
from ..core.random import child_seeds, seeded
from ..data.batches import Data, as_tensors, batches
from ..data.split import Split
from ..models.masks import Masks, prunable
from ..train.build import build
from ..train.outputs import accuracy
from .edge_popup import edge_popup
from .grasp import grasp
from .imp import Ticket, imp
from .magnitude import one_shot
from .ntt import ntt
from .scores import keep_top
from .snip import snip
from .synflow import synflow

if TYPE_CHECKING:
    import xarray

Method = Callable[..., Masks | Ticket]
_CUT = 0.2  # the share of weights that goes in a round of "imp", as in its paper


def compare(
    make_model: Callable[..., nn.Module],
    data: Split | Data,
    *,
    methods: Mapping[str, str | Method] | Sequence[str | Method],
    densities: Sequence[float],
    fit: Callable[..., object],
    repeats: int = 5,
    evaluate: Callable[[nn.Module], float] | None = None,
    loss_fn: Callable[[Any, Any], Tensor] = functional.cross_entropy,
    examples: int = 256,
    generator: torch.Generator | int | None = None,
    device: torch.device | str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> xarray.Dataset:
    """How good networks become that were pruned in different ways, to different densities.

    Each repetition makes one network. Every method prunes a copy of it to every density; what is left is trained by
    `fit`, always with the same data in the same order, and evaluated. The whole network is trained in the same way
    once a repetition. So methods differ in nothing but what they keep (and, where they give a `Ticket`, in the weights
    that training starts from), and differences may be taken repetition by repetition.

    Methods that have a name here: "random" and "magnitude" (weights of all layers compete), "snip", "grasp", "synflow",
    "edge-popup", "ntt", and "imp": iterative magnitude pruning over all layers by about a fifth a round, which trains
    with `fit` many times. A method of one's own is `method(model, loss_fn, data, *, density, generator)` and gives
    `Masks` or a `Ticket`; it gets all of the training data.

    Ctrl-C ends the comparison early: what is done is returned, with a warning, and the rest is NaN.

    Args:
        make_model: makes a network at its initialization; called through `train.build`.
        data: a `Split`; or what is trained on, with `evaluate`.
        methods: names and functions, or a mapping from the names that the result shall have to them.
        densities: the shares of weights to keep.
        fit: trains a network in place: `fit(model, data, masks=, generator=)`, usually a `functools.partial` of
            `train.fit`; "imp" needs one that returns a `Fit`, as that does.
        repeats: how many networks each method prunes.
        evaluate: from a network to its accuracy; on the test part of the `Split` unless said.
        loss_fn: from outputs and labels to their mean loss, for methods that need one.
        examples: on how many training examples, drawn anew in every repetition, "snip" and "grasp" score.
        generator: what everything is drawn from.
        device: where to work, by default CUDA if there is one; the data stay where they are.
        progress: called with the trainings done and their total, after each.

    Returns:
        Dimensions `arm` (the methods), `density`, `repeat`, `layer` (names of the weights that can be pruned):

        - `accuracy`, and `start_accuracy` before any training (arm, density, repeat).
        - `kept`, the share of its weights that a layer keeps (arm, density, repeat, layer).
        - `collapsed`, how many layers keep nothing (arm, density, repeat).
        - `dense_accuracy` (repeat), of the whole network.

        `report.accuracy_by_density` draws it.

    Raises:
        InputError: no methods, densities or repetitions, a density outside (0, 1], a name that is not known or stands
            twice, no way to evaluate, a method that fails or gives something else, or a `fit` that ignores its masks.
    """
    import numpy
    import xarray

    shares = [float(density) for density in densities]
    if repeats < 1 or not shares:
        raise InputError("compare needs at least one density and one repetition")
    if len(set(shares)) < len(shares) or not all(0 < share <= 1 for share in shares):
        raise InputError(f"densities are different shares above 0 and at most 1, not {tuple(densities)}")
    chosen = _methods(methods, fit, examples)
    part, test = (data.train, data.test) if isinstance(data, Split) else (data, None)
    if evaluate is None:
        if test is None:
            raise InputError("give a Split, or evaluate=, which says how good a network is")
        evaluate = partial(accuracy, data=test)
    shape, num_classes = _described(data, part)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    layers: list[str] = []
    found: dict[tuple[str, float, int], tuple[float, float, list[float]]] = {}
    dense: list[float] = []
    total = repeats * (1 + len(chosen) * len(shares))

    def advance() -> None:
        if progress is not None:
            progress(len(dense) + len(found), total)

    try:
        for repeat, seed in enumerate(child_seeds(generator, repeats)):
            network_seed, order, draw = child_seeds(seed, 3)
            network = build(make_model, shape=shape, num_classes=num_classes, generator=network_seed).to(place)
            layers = layers or list(prunable(network))
            whole = copy.deepcopy(network)
            with _drawing(order, place):
                fit(whole, part, masks=Masks.ones(network), generator=order)
            dense.append(float(evaluate(whole)))
            advance()
            for (name, method), density in itertools.product(chosen.items(), shares):
                with _drawing(draw, place):
                    ticket = _pruned(name, method, network, loss_fn, part, density, draw)
                pruned = ticket.network(network)
                start = float(evaluate(pruned))
                with _drawing(order, place):
                    fit(pruned, part, masks=ticket.masks, generator=order)
                _check_masked(pruned, ticket.masks)
                kept = [float(ticket.masks[each].double().mean()) if each in ticket.masks else 1.0 for each in layers]
                found[name, density, repeat] = float(evaluate(pruned)), start, kept
                advance()
    except KeyboardInterrupt:
        if not found:
            raise
        done = len(dense) + len(found)
        warnings.warn(f"interrupted after {done} of {total} trainings: the rest is NaN", stacklevel=2)
    grid = [(name, density, repeat) for name in chosen for density in shares for repeat in range(repeats)]
    missing = math.nan, math.nan, [math.nan] * len(layers)
    cells = [found.get(cell, missing) for cell in grid]
    dims, form = ("arm", "density", "repeat"), (len(chosen), len(shares), repeats)
    kept_shares = numpy.reshape([cell[2] for cell in cells], (*form, len(layers)))
    out = xarray.Dataset(
        {
            "accuracy": (dims, numpy.reshape([cell[0] for cell in cells], form)),
            "start_accuracy": (dims, numpy.reshape([cell[1] for cell in cells], form)),
            "kept": ((*dims, "layer"), kept_shares),
            "dense_accuracy": ("repeat", dense + [math.nan] * (repeats - len(dense))),
        },
        {"arm": list(chosen), "density": shares, "repeat": numpy.arange(repeats), "layer": layers},
    )
    return out.assign(collapsed=(out.kept == 0).sum("layer").where(out.accuracy.notnull()))


def _methods(methods: Any, fit: Callable[..., Any], examples: int) -> dict[str, Method]:
    if isinstance(methods, str) or callable(methods):
        methods = [methods]
    if examples < 1:
        raise InputError(f"examples must be at least 1, not {examples}")
    pairs = methods.items() if isinstance(methods, Mapping) else [(_called(method), method) for method in methods]
    chosen: dict[str, Method] = {}
    for name, method in pairs:
        if name in chosen:
            raise InputError(f"two methods are called {name!r}: give a mapping from names of your own to methods")
        if not callable(method) and method not in _NAMED:
            raise InputError(f"method must be a function or one of {', '.join(_NAMED)}, not {method!r}")
        chosen[str(name)] = method if callable(method) else partial(_NAMED[method], fit=fit, examples=examples)
    if not chosen:
        raise InputError("compare needs at least one method")
    return chosen


def _called(method: Any) -> str:
    if isinstance(method, partial):
        return _called(method.func)
    return method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)


def _described(data: Any, part: Any) -> tuple[tuple[int, ...] | None, int | None]:
    """The shape of an example and the number of classes, for the factory; nothing of a loader."""
    if not (isinstance(part, (tuple, list)) and len(part) == 2 and isinstance(part[0], Tensor)):
        return None, len(data.classes) if isinstance(data, Split) else None
    batches(part, 1)  # which refuses what is no data
    x, y = part
    if isinstance(data, Split):
        return tuple(x.shape[1:]), len(data.classes)
    return tuple(x.shape[1:]), None if y.is_floating_point() else int(y.max()) + 1


def _pruned(
    name: str, method: Method, network: nn.Module, loss_fn: Any, part: Any, density: float, draw: int
) -> Ticket:
    """What a method makes of a copy of the network."""
    own = copy.deepcopy(network)
    try:
        made = method(own, loss_fn, part, density=density, generator=draw)
    except InputError as error:
        raise InputError(f"{name} at density {density:g}: {error}") from error
    if isinstance(made, Ticket):
        return made
    if not isinstance(made, Masks):
        raise InputError(f"{name} gave a {type(made).__name__}; a method gives Masks or a Ticket")
    state = {key: value.detach().clone() for key, value in network.state_dict().items()}
    return Ticket(made, state, made.density, draw)


def _check_masked(network: nn.Module, masks: Masks) -> None:
    for name, (weight, mask) in masks.within(network).items():
        if bool((weight.detach()[~mask] != 0).any()):
            raise InputError(f"fit trained weights of {name!r} that the masks remove: it must keep to masks=")


@contextmanager
def _drawing(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own generators, for dropout and the like, seeded and put back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _sample(data: Any, examples: int, generator: int) -> tuple[Tensor, Tensor]:
    """So many examples: random ones of tensors, the first ones that a loader gives."""
    if isinstance(data, (tuple, list)) and len(data) == 2 and isinstance(data[0], Tensor):
        return next(iter(batches(data, examples, generator=generator, shuffle=True)))
    gathered, count = [], 0
    for x, y in data:
        gathered.append((x, y))
        count += len(x)
        if count >= examples:
            break
    x, y = as_tensors(gathered)
    return x[:examples], y[:examples]


def _random(model, loss_fn, data, *, density, generator, **_):  # type: ignore[no-untyped-def]
    rng = seeded(generator)
    scores = {name: torch.rand(weight.shape, generator=rng) for name, weight in prunable(model).items()}
    return keep_top(scores, density=density).to(next(model.parameters()).device)


def _magnitude(model, loss_fn, data, *, density, **_):  # type: ignore[no-untyped-def]
    return one_shot(model, density=density)


def _snip(model, loss_fn, data, *, density, generator, examples, **_):  # type: ignore[no-untyped-def]
    return snip(model, loss_fn, _sample(data, examples, generator), density=density)


def _grasp(model, loss_fn, data, *, density, generator, examples, **_):  # type: ignore[no-untyped-def]
    return grasp(model, loss_fn, _sample(data, examples, generator), density=density)


def _synflow(model, loss_fn, data, *, density, generator, **_):  # type: ignore[no-untyped-def]
    return synflow(model, data=_sample(data, 1, generator), density=density)


def _edge_popup(model, loss_fn, data, *, density, generator, **_):  # type: ignore[no-untyped-def]
    return edge_popup(model, loss_fn, data, density=density, generator=generator)


def _ntt(model, loss_fn, data, *, density, generator, **_):  # type: ignore[no-untyped-def]
    return ntt(model, data, density=density, generator=generator)


def _imp(model, loss_fn, data, *, density, generator, fit, **_):  # type: ignore[no-untyped-def]
    rounds = max(1, round(math.log(density) / math.log(1 - _CUT)))
    rate = 1 - density ** (1 / rounds)
    return imp(model, data, fit, rounds=rounds, rate=rate, scope="global", generator=generator)[-1]


_NAMED: dict[str, Method] = {
    "random": _random,
    "magnitude": _magnitude,
    "snip": _snip,
    "grasp": _grasp,
    "synflow": _synflow,
    "edge-popup": _edge_popup,
    "ntt": _ntt,
    "imp": _imp,
}
