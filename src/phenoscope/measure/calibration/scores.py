"""How good predicted probabilities are: `nll`, `calibration_error`."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.errors import InputError

_SUM = 1e-3  # how far a row may be from 1: half precision keeps three digits


def nll(probabilities: Tensor, y: Tensor) -> float:
    """The mean negative logarithm of the probability of the true class, in nats.

    It is infinite where a true class has the probability 0: take probabilities in double precision, as
    `train.Ensemble` gives them.

    Args:
        probabilities: (N, C), rows of sum 1.
        y: classes (N,).

    Raises:
        InputError: rows that are no probabilities, or labels that are not one class a row.

    Examples:
        >>> round(nll(torch.tensor([[0.5, 0.5], [0.8, 0.2]]), torch.tensor([0, 1])), 4)
        1.1513
    """
    probabilities, y = _checked(probabilities, y)
    return float(-probabilities.gather(1, y[:, None]).log().mean())


def calibration_error(probabilities: Tensor, y: Tensor, *, bins: int = 20) -> float:
    """How far the confidence of decisions is from how often they are right (expected calibration error).

    ECE = sum over bins b of n_b / N |accuracy_b - confidence_b|, in `bins` bins (low, high] of equal width of the
    largest probability (Naeini, Cooper and Hauskrecht, AAAI 2015; Guo, Pleiss, Sun and Weinberger, ICML 2017,
    equation 3). It is biased upwards where bins hold few examples.

    Args:
        probabilities: (N, C), rows of sum 1.
        y: classes (N,).
        bins: how many.

    Returns:
        From 0, calibrated, to 1.

    Raises:
        InputError: no bins, rows that are no probabilities, or labels that are not one class a row.

    Examples:
        >>> round(calibration_error(torch.tensor([[0.75, 0.25]] * 4), torch.tensor([0, 0, 1, 1])), 4)
        0.25
    """
    if bins < 1:
        raise InputError(f"there must be at least 1 bin, not {bins}")
    probabilities, y = _checked(probabilities, y)
    confidence, decisions = probabilities.max(1)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidence.device)[1:-1]
    places = torch.bucketize(confidence, edges)  # (low, high]: what lies on an edge belongs to the bin below
    gaps = (decisions == y).double() - confidence
    return float(gaps.new_zeros(bins).index_add_(0, places, gaps).abs().sum() / len(y))


def _checked(probabilities: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the same place, probabilities in double precision."""
    if probabilities.ndim != 2 or not probabilities.is_floating_point() or not len(probabilities):
        raise InputError(f"probabilities have shape (N, C), not {tuple(probabilities.shape)} of {probabilities.dtype}")
    if y.shape != probabilities.shape[:1] or y.is_floating_point():
        raise InputError(f"labels must be classes of shape ({len(probabilities)},), not {y.dtype} {tuple(y.shape)}")
    found, y = probabilities.detach().double(), y.to(probabilities.device)
    if not bool((found >= 0).all()) or not bool(((found.sum(1) - 1).abs() <= _SUM).all()):
        raise InputError("every row must be probabilities, at least 0 and of sum 1: apply a softmax to scores first")
    if int(y.min()) < 0 or int(y.max()) >= found.shape[1]:
        raise InputError(f"labels go from {int(y.min())} to {int(y.max())}; there are {found.shape[1]} classes")
    return found, y.long()
