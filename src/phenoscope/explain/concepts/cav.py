"""Concept activation vectors: the directions that tell a concept's examples from others."""

from __future__ import annotations

import warnings

import numpy as np
import torch

CLASSIFIERS = ("sgd", "logistic")
_TRAIN_SHARE = 0.67


def concept_vector(positive: np.ndarray, negative: np.ndarray, classifier: str, seed: int) -> tuple[np.ndarray, float]:
    """The unit normal of a linear classifier, pointing to the positive side, and its accuracy on held-out examples.

    After Kim et al. (ICML 2018), section 3.2. Both sides are cut to the same number; 67 % of each train.

    Args:
        positive, negative: activations (n, D), float64.
        classifier: "sgd": scikit-learn's `SGDClassifier` (hinge, alpha 0.01); or "logistic": `LogisticRegression`.
        seed: of the cut, the division and the classifier.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, SGDClassifier

    rng = np.random.default_rng(seed)
    count = min(len(positive), len(negative))
    trained = min(max(1, round(_TRAIN_SHARE * count)), count - 1)
    sides = [side[rng.permutation(len(side))[:count]] for side in (positive, negative)]
    x = np.concatenate([side[:trained] for side in sides])
    y = np.repeat([1, 0], trained)
    # The classifier's weights never leave the span of its examples, and depend on inner products alone: in
    # coordinates of that span it takes the same steps, in far fewer dimensions.
    basis = None
    if x.shape[1] > len(x):
        basis, triangle = np.linalg.qr(x.T)
        x = triangle.T
    if classifier == "sgd":
        found = SGDClassifier(loss="hinge", alpha=0.01, max_iter=1000, tol=1e-3, random_state=seed % 2**32)
    else:
        found = LogisticRegression(max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an unsettled normal is one more random direction
        found.fit(x, y)
    normal = found.coef_[0] if basis is None else basis @ found.coef_[0]
    held = np.concatenate([side[trained:] for side in sides])
    truth = np.repeat([1, 0], count - trained)
    accuracy = float(((held @ normal + found.intercept_[0] > 0) == truth).mean())
    length = np.linalg.norm(normal)
    return (normal / length if length > 0 else normal), accuracy


def concept_vectors(
    positive: np.ndarray, negatives: list[np.ndarray], classifier: str, seeds: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One vector against each set of negatives: vectors (R, D) and held-out accuracies (R,)."""
    found = [concept_vector(positive, each, classifier, seed) for each, seed in zip(negatives, seeds, strict=True)]
    return torch.from_numpy(np.stack([vector for vector, _ in found])), torch.tensor([a for _, a in found]).double()
