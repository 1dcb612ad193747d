"""Information that a layer has about input and label: `mi_binned`, `mi_kde`, `mi_gaussian_linear`; `Information`."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ...core.errors import InputError

_DISTANCES = 2**22  # between pairs of examples, held at once


@dataclasses.dataclass(frozen=True)
class Information:
    """What a layer T knows, in bits.

    Attributes:
        input: I(X;T).
        label: I(T;Y).
    """

    input: float
    label: float


def mi_binned(acts: Tensor, labels: Tensor, *, bins: int = 30, range: tuple[float, float] | None = None) -> Information:
    """The information of a layer whose every unit is read off to one of some equal bins.

    The bins of all units together are the symbol t. T follows from X, so that I(X;T) = H(T), and I(T;Y) = sum_t p(t)
    KL(p(y|t) || p(y)), the examples being all inputs there are, equally probable (Shwartz-Ziv and Tishby, "Opening the
    Black Box of Deep Neural Networks via Information", 2017, section 3.2). Neither can exceed log2 N.

    What comes out depends on the bins as much as on the network: enough of them give log2 N for any layer that keeps
    inputs apart, and bins that are laid anew over each moment's values hide a layer that grows or saturates. To compare
    moments of a training give the same `range` to all, as `information_plane` does.

    Args:
        acts: (N, ...), what the layer puts out for N inputs.
        labels: classes (N,), whole numbers; or p(y | x), (N, C).
        bins: how many a unit.
        range: the lowest and the highest value that have a bin; values beyond are put to the outermost. `None` takes
            those of `acts`.

    Raises:
        InputError: activations or labels that are no such numbers, or a number out of range.

    Examples:
        >>> acts = torch.tensor([[-0.9], [-0.8], [0.7], [0.9]])
        >>> mi_binned(acts, torch.tensor([0, 0, 1, 1]), bins=2, range=(-1, 1))
        Information(input=1.0, label=1.0)
    """
    rows, given = _rows(acts), _probabilities(labels, len(acts))
    low, high = (float(rows.min()), float(rows.max())) if range is None else (float(range[0]), float(range[1]))
    if bins < 1 or not low <= high or (range is not None and low == high):
        raise InputError(f"bins must be at least 1 and range go upward, not {bins} and {range}")
    # in double precision: the same layer times a constant falls into the same bins
    places = ((rows.double() - low) / ((high - low) or 1.0) * bins).floor_().clamp_(0, bins - 1).long()
    symbols = _symbols(places, bins)
    counts = torch.bincount(symbols).double()
    share = counts / len(rows)
    each = torch.zeros(len(counts), given.shape[1], dtype=torch.float64, device=given.device)
    each.index_add_(0, symbols, given)
    spread = share @ _entropy(each / counts[:, None])
    return Information(float(_entropy(share[None])), max(0.0, float(_entropy(given.mean(0)[None]) - spread)))


def mi_kde(acts: Tensor, labels: Tensor, *, noise_var: float = 0.1, bound: str = "upper") -> Information:
    """Bounds on the information of a layer to which Gaussian noise is added, T = h(X) + N(0, s2 I).

    T is a mixture of one Gaussian an input. With a = 2 s2 for the upper bound and a = 8 s2 for the lower one
    (Kolchinsky and Tracey, "Estimating Mixture Entropy with Pairwise Distances", Entropy 2017),

        I(X;T) = -mean_i log2 mean_j exp(-|h_i - h_j|^2 / a),

    and I(T;Y) is that minus the same within each class, weighted by p(y); it is a difference of two bounds and none
    itself. The noise is no part of the network: its variance decides what counts as one value. Inputs much further
    apart than s all count, whatever the layer does, and inputs much nearer count as one.

    Args:
        acts: (N, ...), what the layer puts out for N inputs.
        labels: classes (N,), whole numbers; or p(y | x), (N, C).
        noise_var: s2, the variance of the noise on every unit.
        bound: "upper" or "lower".

    Raises:
        InputError: activations or labels that are no such numbers, or a number out of range.
    """
    rows, given = _rows(acts).double(), _probabilities(labels, len(acts))
    if bound not in ("upper", "lower"):
        raise InputError(f'bound must be "upper" or "lower", not {bound!r}')
    if not 0 < noise_var < math.inf:
        raise InputError(f"noise_var must be positive, not {noise_var}")
    rows = rows - rows.mean(0)  # what the products below lose is relative to the distance from zero
    scale = (2 if bound == "upper" else 8) * noise_var
    of_class = given.mean(0)
    # p(x), and p(x | y) of every class: what the Gaussians are mixed by
    shares = torch.cat([torch.full_like(given[:, :1], 1 / len(rows)), given / given.sum(0).clamp(min=1e-300)], 1)
    totals = torch.zeros(shares.shape[1], dtype=torch.float64, device=rows.device)
    squares = rows.square().sum(1)
    size = max(1, _DISTANCES // len(rows))
    for part, own, weight in zip(rows.split(size), squares.split(size), shares.split(size), strict=True):
        near = torch.addmm(squares[None], part, rows.T, alpha=-2).add_(own[:, None]).clamp_(min=0)
        density = near.div_(-scale).exp_() @ shares
        totals += (weight * density.clamp(min=1e-300).log2()).sum(0)
    whole, within = -totals[0], -totals[1:]
    return Information(max(0.0, float(whole)), max(0.0, float(whole - of_class @ within)))


def mi_gaussian_linear(
    weight: Tensor,
    covariance: Tensor | None = None,
    *,
    noise_var: float,
    teacher: Tensor | None = None,
    label_noise: float = 0.0,
) -> Information:
    """The information of a linear layer on Gaussian inputs, exactly.

    For x ~ N(0, S), T = W x + N(0, s2 I) and y = w0 x + N(0, n2), I(X;T) = log2 det(I + W S W' / s2) / 2, and I(T;Y)
    comes from the joint covariance: half of log2 of the variance of y over its variance given T (Saxe, Bansal, Dapello
    et al., "On the Information Bottleneck Theory of Deep Learning", ICLR 2018, section 3).

    Args:
        weight: (k, d), W: the product of all matrices up to the layer.
        covariance: (d, d), S; the identity unless given.
        noise_var: s2, the variance of the noise on every unit, without which I(X;T) is infinite.
        teacher: (d,), w0.
        label_noise: n2, the variance of the noise on y.

    Returns:
        Bits; I(T;Y) is NaN without a teacher.

    Raises:
        InputError: matrices that do not fit together, or a number out of range.

    Examples:
        >>> mi_gaussian_linear(torch.tensor([[1.0]]), noise_var=1 / 3).input
        1.0
    """
    w = weight.detach().double()
    if w.ndim != 2:
        raise InputError(f"weight must be a matrix, not of shape {tuple(w.shape)}")
    s = torch.eye(w.shape[1]).to(w) if covariance is None else covariance.to(w)
    if s.shape != (w.shape[1], w.shape[1]) or (teacher is not None and teacher.shape != (w.shape[1],)):
        raise InputError(f"weight takes {w.shape[1]} inputs; covariance and teacher must have as many")
    if not 0 < noise_var < math.inf or not 0 <= label_noise < math.inf:
        raise InputError(f"noise_var must be positive and label_noise at least 0, not {noise_var} and {label_noise}")
    signal = w @ s @ w.T
    own = torch.eye(len(w), dtype=w.dtype, device=w.device)
    known = float(torch.linalg.slogdet(own + signal / noise_var).logabsdet) / 2 / math.log(2)
    if teacher is None:
        return Information(known, math.nan)
    rule = teacher.detach().to(w)
    shared = w @ s @ rule
    variance = float(rule @ s @ rule) + label_noise
    left = variance - float(shared @ torch.linalg.solve(signal + noise_var * own, shared))
    if variance <= 0 or left <= 0:
        raise InputError("the labels have no variance of their own: give label_noise, or a teacher that is not zero")
    return Information(known, max(0.0, math.log2(variance / left) / 2))


def _rows(acts: Tensor) -> Tensor:
    """One row of units an example, checked."""
    if acts.ndim == 0 or acts.numel() == 0:
        raise InputError(f"activations need at least one example and one unit; their shape is {tuple(acts.shape)}")
    rows = acts.detach().reshape(len(acts), -1)
    if not bool(torch.isfinite(rows).all()):
        bad = int((~torch.isfinite(rows)).any(1).sum())
        raise InputError(f"activations are not finite in {bad} of {len(rows)} examples: has the training diverged?")
    return rows


def _probabilities(labels: Tensor, count: int) -> Tensor:
    """p(y | x), (N, C), in double precision."""
    if len(labels) != count or labels.ndim not in (1, 2) or labels.is_floating_point() != (labels.ndim == 2):
        raise InputError(
            f"labels must be whole numbers (N,) or probabilities (N, C) of the {count} examples, not "
            f"{labels.dtype} of shape {tuple(labels.shape)}"
        )
    if labels.ndim == 1:
        _, index = labels.detach().unique(return_inverse=True)
        return torch.nn.functional.one_hot(index).double()
    given = labels.detach().double()
    if not bool((given >= 0).all()) or not bool(((given.sum(1) - 1).abs() < 1e-5).all()):
        raise InputError("p(y | x) must be at least 0 and sum to 1 for every example")
    return given


def _symbols(places: Tensor, bins: int) -> Tensor:
    """Rows of bin numbers as one number each, from 0 on: equal rows and no others have the same."""
    found, values = torch.zeros(len(places), dtype=torch.long, device=places.device), 1
    for column in places.T:
        if values * bins > 2**62:  # renumber what occurs before it overflows
            occurring, found = found.unique(return_inverse=True)
            values = len(occurring)
        found, values = found * bins + column, values * bins
    return found.unique(return_inverse=True)[1]


def _entropy(p: Tensor) -> Tensor:
    """Of every row, in bits."""
    return -torch.special.xlogy(p, p).sum(1) / math.log(2)
