"""Edge-popup: a subnetwork of random weights is found, and no weight is ever trained."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.parameters import call
from ..core.random import child_seeds, seeded
from ..data.batches import Data
from ..models.masks import _NOT_PRUNED, Masks, prunable
from ..train.fit import fit
from ..train.schedule import cosine
from .imp import Ticket

Init = Literal["signed-constant", "scaled-signed-constant", "kaiming-normal", "own"]
SGD = functools.partial(torch.optim.SGD, momentum=0.9, weight_decay=5e-4)


@dataclasses.dataclass(frozen=True, eq=False)
class Popup(Ticket):
    """A subnetwork of random weights: `model` computes with these weights as they are.

    Attributes:
        scores: parameter name -> the learned scores, of which the largest in size are kept.
    """

    scores: dict[str, Tensor] = dataclasses.field(default_factory=dict)


def edge_popup(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    data: Data,
    *,
    density: float = 0.5,
    steps: int = 1000,
    lr: float = 0.1,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
    init: Init = "signed-constant",
    batch_size: int | None = 128,
    generator: torch.Generator | int | None = None,
) -> Popup:
    """Find a subnetwork of a random network that solves the task as it is (Ramanujan et al., CVPR 2020, section 3).

    Every weight w of a layer has a score s. The forward pass uses w where |s| is among the share `density` of the
    largest of its layer, else 0; backward, this choice counts as the identity of |s|, so that

        dL/ds = dL/d(w m) w sign(s)

    reaches every score, kept or not. Only scores are trained, by SGD with momentum 0.9, weight decay 5e-4 and a cosine
    schedule. Weights are drawn anew and then frozen; biases are zero, the scales of norms one and their shifts zero.

    Args:
        model: the network's architecture; left as it was found.
        loss_fn: from outputs and labels to their mean loss.
        data: a pair of tensors `(x, y)` or a loader of such batches.
        density: the share of weights to keep in each layer; in the middle there is most to choose from.
        steps: updates of the scores.
        lr: the first learning rate.
        optimizer: another one, a factory from parameters, in place of SGD and `lr`.
        init: "signed-constant", +-sqrt(2 / fan_in) by the toss of a coin; "scaled-signed-constant", the same over
            sqrt(density); "kaiming-normal", N(0, 2 / fan_in); "own" keeps every parameter of the model as it is.
        batch_size: examples in a batch, where the data are tensors.
        generator: what weights, scores and the order of the data are drawn from.

    Returns:
        A ticket: `model` is the subnetwork found, `history` the loss while scores were trained, `scores` what they
        became. A training that starts from the ticket is fine-tuning, and says nothing of untrained weights.

    Raises:
        InputError: a density outside (0, 1], another `init`, a network without weights to prune, or what `fit` refuses.
    """
    weights, order = child_seeds(generator, 2)
    scored = Scored(model, density=density, init=init, generator=weights)
    updater = functools.partial(SGD, lr=lr) if optimizer is None else optimizer
    trained = fit(
        scored, data, steps=steps, optimizer=updater(scored.scores.parameters()), loss_fn=loss_fn,
        batch_size=batch_size, schedule=cosine(steps), generator=order,
    )  # fmt: skip
    return dataclasses.replace(scored.ticket(), seed=order, history=trained.history)


class Scored(nn.Module):
    """A frozen random network with a score for every weight, which alone can be trained; `train.fleet` takes it, too.

    Args:
        model: the architecture; copied.
        density: the share of weights to keep in each layer.
        init: as in `edge_popup`.
        generator: what weights and scores are drawn from.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        density: float,
        init: Init = "signed-constant",
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        if not 0 < density <= 1:
            raise InputError(f"density is the share of weights to keep, above 0 and at most 1, not {density!r}")
        rng = seeded(generator)
        self.density = density
        self.network = copy.deepcopy(model)
        weights = prunable(self.network)
        names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        self.names, self.clean = [names[id(weight)] for weight in weights.values()], list(weights)
        if init != "own":
            _freeze_neutral(self.network)
        with torch.no_grad():
            for weight in weights.values():
                weight.copy_(_drawn(weight, init, density, rng))
        self.network.requires_grad_(False)
        self.scores = nn.ParameterList(
            [_uniform(weight, rng).mul_(_fan_in(weight) ** -0.5).to(weight) for weight in weights.values()]
        )

    def forward(self, x: Any) -> Any:
        own = dict(self.network.named_parameters())
        values = {
            name: own[name] * _straight_through(score, round(self.density * score.numel()))
            for name, score in zip(self.names, self.scores, strict=True)
        }
        return call(self.network, values, x)

    def masks(self) -> Masks:
        """The weights that are chosen now."""
        pairs = zip(self.clean, self.scores, strict=True)
        return Masks({name: top(score.detach(), round(self.density * score.numel())) for name, score in pairs})

    def ticket(self) -> Popup:
        """The choice with the frozen weights, and the subnetwork as a network of its own."""
        masks = self.masks()
        state = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        found = masks.apply_(copy.deepcopy(self.network)).requires_grad_(True)
        scores = {name: score.detach().clone() for name, score in zip(self.clean, self.scores, strict=True)}
        return Popup(masks, state, masks.density, model=found, scores=scores)


def top(score: Tensor, count: int) -> Tensor:
    """True at exactly `count` of the largest |score|; of equal ones at those that come first, as in `keep_top`."""
    size = score.abs().reshape(-1)
    if count == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    least = size.kthvalue(len(size) - count + 1).values
    above, equal = size > least, size == least
    return (above | (equal & (equal.cumsum(0, dtype=torch.int32) <= count - above.sum()))).reshape(score.shape)


def _straight_through(score: Tensor, count: int) -> Tensor:
    """The choice as zeros and ones, with the gradient of |score|: the difference added is zero."""
    size = score.abs()
    return top(score.detach(), count).to(score.dtype) + (size - size.detach())


def _drawn(weight: Tensor, init: str, density: float, rng: torch.Generator) -> Tensor:
    scale = math.sqrt(2 / _fan_in(weight))
    if init == "own":
        return weight
    if init == "kaiming-normal":
        return torch.randn(weight.shape, generator=rng, device=rng.device).to(weight) * scale
    if init in ("signed-constant", "scaled-signed-constant"):
        scale = scale if init == "signed-constant" else scale / math.sqrt(density)
        return torch.where(_uniform(weight, rng) < 0, -scale, scale).to(weight)
    raise InputError(
        f"init must be 'signed-constant', 'scaled-signed-constant', 'kaiming-normal' or 'own', not {init!r}"
    )


def _uniform(like: Tensor, rng: torch.Generator) -> Tensor:
    """Between -1 and 1."""
    return torch.rand(like.shape, generator=rng, device=rng.device) * 2 - 1


def _fan_in(weight: Tensor) -> int:
    return max(1, weight[0].numel())


@torch.no_grad()
def _freeze_neutral(network: nn.Module) -> None:
    """Biases to zero, norms' scales to one."""
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if "bias" in name:
                parameter.zero_()
            elif name == "weight" and isinstance(module, _NOT_PRUNED) and not hasattr(module, "num_embeddings"):
                parameter.fill_(1)
