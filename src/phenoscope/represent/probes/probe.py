"""How much of the labels a linear classifier finds in frozen features."""

from __future__ import annotations

import warnings

from torch import Tensor, nn

from ...core.errors import InputError
from ...data.batches import Data, as_tensors
from ...train import outputs


def probe(
    encoder: nn.Module,
    train: Data,
    test: Data,
    *,
    C: float = 0.01,
    max_iter: int = 200,
    batch_size: int = 256,
) -> float:
    """Test accuracy of logistic regression on an encoder's features, the encoder frozen.

    The encoder works in evaluation mode. Features are flattened and standardized by the mean and the standard deviation
    (plus 1e-5) of the training part; scikit-learn's `LogisticRegression` is fitted to them.

    Args:
        encoder: from a batch to features; `nn.Identity()` probes the inputs themselves.
        train: labeled examples for the classifier.
        test: examples for the accuracy alone.
        C: inverse strength of its L2 penalty; it is not chosen on any data.
        max_iter: of its solver, which may stop there before it has converged.
        batch_size: examples at a time through the encoder, where the data are tensors.

    Returns:
        The share of test examples classified correctly, from 0 to 1.

    Raises:
        InputError: data that `data.batches` refuses, features that are not finite, or training labels of one class.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    parts = []
    for part in (train, test):
        x, y = as_tensors(part)
        found = outputs(encoder, (x, y), batch_size=batch_size).flatten(1).double().cpu()
        if not found.isfinite().all():
            raise InputError("the encoder's features are not all finite: a linear probe cannot be fitted to them")
        parts.append((found, y.cpu()))
    (features, labels), (new, truth) = parts
    if len(labels.unique()) < 2:
        raise InputError("the training part of a probe needs examples of at least two classes")
    mean, std = features.mean(0), features.std(0, correction=0) + 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations is part of the measure
        classifier = LogisticRegression(C=C, max_iter=max_iter).fit(_scaled(features, mean, std), labels.numpy())
    return float(classifier.score(_scaled(new, mean, std), truth.numpy()))


def _scaled(features: Tensor, mean: Tensor, std: Tensor) -> object:
    return ((features - mean) / std).numpy()
