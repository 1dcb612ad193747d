"""TCAV: whether a class's score rises along a concept, tested against concepts that mean nothing."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.random import child_seeds
from ...core.taps import Layer, activations, rows_at_once, tap
from ..score import Target, explaining, input_gradient, real_input, score_of
from .cav import CLASSIFIERS, concept_vectors
from .significance import rank_p, welch_p

TESTS = ("random_means", "welch")
_FEW_SETS, _FEW_NULLS, _FEW_EXAMPLES, _MANY_ZEROS = 10, 40, 20, 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class TcavResult:
    """How a class's score responds to a concept, and whether more than to random ones. Tensors are on the CPU, float64.

    Attributes:
        scores: (R,) share of the class's inputs whose logit rises along the concept, one a run.
        magnitudes: (R,) mean absolute sensitivity, in logits a unit of activation.
        cavs: (R, D) unit vectors that point to the concept.
        cav_accuracy: (R,) of their classifiers, on held-out examples.
        random_scores: (R,) scores of random sets against other random sets, every run with its own two.
        random_means: (J,) mean scores over the runs of J pseudo-concepts, each one random set.
        p_random_means: rank of the concept's mean score among those of the pseudo-concepts, two-sided.
        p_welch: Welch's t-test of `scores` against `random_scores`.
        significant: p-value of the chosen test below alpha, divided by the number of concepts that were asked, and mean
            accuracy of the classifiers above `min_accuracy`.
    """

    scores: Tensor
    magnitudes: Tensor
    cavs: Tensor
    cav_accuracy: Tensor
    random_scores: Tensor
    random_means: Tensor
    p_random_means: float
    p_welch: float
    significant: bool

    @property
    def score(self) -> float:
        """The mean score over the runs."""
        return float(self.scores.mean())


@overload
def tcav(
    model: nn.Module, layer: Layer, concept_x: Tensor, random_sets: Sequence[Tensor] | Tensor, class_x: Tensor,
    target: Target = None, *, runs: int = 20, test: str = "random_means", alpha: float = 0.05,
    min_accuracy: float = 0.6, classifier: str = "sgd", channel_means: bool = False,
    generator: torch.Generator | int | None = None, chunk: int | None = None,
) -> TcavResult: ...  # fmt: skip
@overload
def tcav(
    model: nn.Module, layer: Layer, concept_x: Mapping[str, Tensor], random_sets: Sequence[Tensor] | Tensor,
    class_x: Tensor, target: Target = None, *, runs: int = 20, test: str = "random_means", alpha: float = 0.05,
    min_accuracy: float = 0.6, classifier: str = "sgd", channel_means: bool = False,
    generator: torch.Generator | int | None = None, chunk: int | None = None,
) -> dict[str, TcavResult]: ...  # fmt: skip
def tcav(
    model: nn.Module,
    layer: Layer,
    concept_x: Tensor | Mapping[str, Tensor],
    random_sets: Sequence[Tensor] | Tensor,
    class_x: Tensor,
    target: Target = None,
    *,
    runs: int = 20,
    test: str = "random_means",
    alpha: float = 0.05,
    min_accuracy: float = 0.6,
    classifier: str = "sgd",
    channel_means: bool = False,
    generator: torch.Generator | int | None = None,
    chunk: int | None = None,
) -> TcavResult | dict[str, TcavResult]:
    """Share of a class's inputs whose logit rises when the activations of a layer move towards a concept.

    After Kim, Wattenberg, Gilmer, Cai, Wexler, Viegas, Sayres, "Interpretability Beyond Feature Attribution" (ICML
    2018), equations 1 and 2: in run r a linear classifier tells the concept's examples from random set r in the layer;
    with its unit normal v the sensitivity of an input is S(x) = grad_a logit(a(x)) . v, and the score of the run is the
    share of inputs with S(x) > 0.

    Two tests come with it. "welch" is the paper's: a t-test between the scores of the concept's runs and of random sets
    against random sets. All runs of a concept share its examples, so it takes a chance property of this one set for
    evidence and rejects far too often. "random_means" ranks the concept's mean score among the mean scores of J random
    sets that were put in its place with the same negatives: p = (1 + #{j: |m_j - med| >= |m - med|}) / (J + 1).

    Args:
        model: from a batch to scores (N, C); it is left as it was found.
        layer: where concepts are sought: a module that is called once, or its dotted name.
        concept_x: examples (n, ...) of the concept; or several concepts by name.
        random_sets: sets (n, ...) of random examples, of the size of a concept's. The first `runs` are the negatives,
            the others the pseudo-concepts. Another concept's examples as negatives give a relative concept vector.
        class_x: inputs (N, ...) of the class in question, not used in training.
        target: the class whose logit is asked; `None` for the network's decision; (N,) classes; or a function.
        runs: how many concept vectors.
        test: which test decides `significant`: "random_means" or "welch".
        alpha: level of the test, divided by the number of concepts (Bonferroni).
        min_accuracy: mean held-out accuracy of the concept vectors below which nothing is significant.
        classifier: "sgd" (hinge loss, as the paper's code) or "logistic".
        channel_means: average activations (N, C, ...) over all places first; then v moves all places alike.
        generator: what draws the examples of the classifiers, and seeds them.
        chunk: inputs in a pass; chosen by their size if not given.

    Returns:
        The result of the concept, or the results by name.

    Raises:
        InputError: an unknown test or classifier, sets of fewer than 2 examples, or fewer random sets than
            `runs` + 2. What is only little is warned about: fewer than 40 pseudo-concepts, 10 runs, 20 examples, and
            more than 5 % of inputs without any gradient.
    """
    if test not in TESTS or classifier not in CLASSIFIERS:
        raise InputError(
            f"test must be one of {TESTS} and classifier one of {CLASSIFIERS}, not {test!r}, {classifier!r}"
        )
    concepts = dict(concept_x) if isinstance(concept_x, Mapping) else {"": concept_x}
    sets = list(random_sets)
    if runs < 2 or len(sets) < runs + 2 or not concepts:
        raise InputError(
            f"{runs} runs need {runs} random sets as negatives and others as pseudo-concepts, at least 40 for a test "
            f"at 5 %; there are {len(sets)} sets and {len(concepts)} concepts (runs must be at least 2)"
        )
    for name, examples in [*concepts.items(), *((f"random set {i}", each) for i, each in enumerate(sets))]:
        if len(examples) < 2:
            raise InputError(f"{name or 'the concept'} has {len(examples)} examples; it needs at least 2, better 50")
    _warn_if_little(runs, len(sets) - runs, min(map(len, concepts.values())))

    def features(x: Tensor) -> np.ndarray:
        found = activations(model, x, layer, chunk=chunk)
        return _flat(found.mean(tuple(range(2, found.ndim))) if channel_means and found.ndim > 2 else found).numpy()

    gradient = _layer_gradients(model, layer, class_x, target, channel_means, chunk)
    zero = float((gradient == 0).all(1).double().mean())
    if zero > _MANY_ZEROS:
        warnings.warn(
            f"the logit has no gradient in this layer at {zero:.0%} of the inputs; they count as not positive",
            stacklevel=2,
        )
    # one division and one classifier seed a run, the same for concepts and pseudo-concepts
    seeds = child_seeds(generator, runs)
    negatives = [features(each) for each in sets[:runs]]

    def sensitivities(examples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vectors, accuracy = concept_vectors(features(examples), negatives, classifier, seeds)
        return gradient @ vectors.T, vectors, accuracy

    random_means = torch.stack([(sensitivities(each)[0] > 0).double().mean() for each in sets[runs:]])
    random_scores = []
    for run in range(runs):  # two pseudo-concepts each; all different where there are enough
        one, other = (sets[runs + (2 * run + i) % (len(sets) - runs)] for i in (0, 1))
        vectors, _ = concept_vectors(features(one), [features(other)], classifier, seeds[run : run + 1])
        random_scores.append((gradient @ vectors[0] > 0).double().mean())
    against, results = torch.stack(random_scores), {}
    for name, examples in concepts.items():
        response, vectors, accuracy = sensitivities(examples)
        scores = (response > 0).double().mean(0)
        p_random, p_welch = rank_p(scores.mean(), random_means), welch_p(scores, against)
        p = p_random if test == "random_means" else p_welch
        results[name] = TcavResult(
            scores=scores,
            magnitudes=response.abs().mean(0),
            cavs=vectors,
            cav_accuracy=accuracy,
            random_scores=against,
            random_means=random_means,
            p_random_means=p_random,
            p_welch=p_welch,
            significant=p < alpha / len(concepts) and float(accuracy.mean()) > min_accuracy,
        )
    return results if isinstance(concept_x, Mapping) else results[""]


def _layer_gradients(
    model: nn.Module, layer: Layer, x: Tensor, target: Target, channel_means: bool, chunk: int | None
) -> Tensor:
    """Gradients (N, D) of the logit with respect to what the layer puts out, at each input by itself."""
    parts = []
    with explaining(model):
        x = real_input(model, x, "class_x")
        score = score_of(model, x, target, "logit", chunk=chunk)
        for rows in torch.arange(len(x), device=x.device).split(rows_at_once(x, chunk)):
            leaves: list[Tensor] = []

            def cut(output: Tensor, leaves: list[Tensor] = leaves) -> Tensor:
                leaves.append(output.detach().requires_grad_())
                return leaves[-1].clone()  # what comes next may work in place

            with tap(model, layer, replace=cut):
                values = score(model(x[rows]), rows)
            if len(leaves) != 1:
                raise InputError(f"the layer was called {len(leaves)} times in a pass; choose one that is called once")
            gradient = input_gradient(values, leaves[0])
            if channel_means and gradient.ndim > 2:
                gradient = gradient.flatten(2).sum(2)
            parts.append(_flat(gradient))
    return torch.cat(parts)


def _flat(values: Tensor) -> Tensor:
    return values.detach().reshape(len(values), -1).cpu().double()


def _warn_if_little(runs: int, nulls: int, examples: int) -> None:
    found = [
        text
        for little, text in (
            (runs < _FEW_SETS, f"{runs} runs (at least {_FEW_SETS})"),
            (nulls < _FEW_NULLS, f"{nulls} pseudo-concepts (at least {_FEW_NULLS})"),
            (examples < _FEW_EXAMPLES, f"{examples} examples of a concept (at least {_FEW_EXAMPLES})"),
        )
        if little
    ]
    if found:
        warnings.warn(f"little to go by: {', '.join(found)}; the tests are coarse", stacklevel=3)
