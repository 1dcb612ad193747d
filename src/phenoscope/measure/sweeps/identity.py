"""What a network becomes that is trained to reproduce one single example: the identity, a constant, or neither."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.random import child_seeds
from ...train import Fit, build, outputs


def identity_probe(
    make_model: Callable[..., nn.Module],
    x: Tensor,
    probes: Tensor,
    fit: Callable[..., Fit],
    *,
    tolerance: float = 1e-4,
    generator: torch.Generator | int | None = None,
    device: torch.device | str | None = None,
) -> IdentityReport:
    """Train a network f to reproduce the one example x, and compare f(z) with z and with x on other inputs z.

    After Zhang, Bengio, Hardt, Mozer and Singer, "Identity Crisis: Memorization and Generalization under Extreme
    Overparameterization" (ICLR 2020). Both f(z) = z and f(z) = x have no training error: which one training finds is
    the inductive bias of the architecture. Take probes that do not resemble x, such as noise, for the constant map: an
    image that does correlates with x by itself.

    Args:
        make_model: a network factory, called through `train.build`, of outputs in the shape of the input.
        x: (1, ...), the example.
        probes: (N, ...), other inputs.
        fit: trains a network: `fit(model, (x, x), generator=)`, usually a `functools.partial` of `train.fit` with
            `loss_fn=mse_loss` and `batch_size=None`.
        tolerance: the relative training error up to which a network counts as fitted.
        generator: what seeds the network and the training.
        device: where to train, by default CUDA if there is one.

    Returns:
        Correlations and errors, one value a probe. Where the report is not `fitted` they say nothing of the bias.

    Raises:
        InputError: shapes that do not match, an example of zeros, or outputs of another shape than the input.
    """
    if x.ndim < 2 or len(x) != 1 or probes.shape[1:] != x.shape[1:] or not len(probes):
        raise InputError(f"x must be (1, ...) and the probes (N, ...), not {tuple(x.shape)} and {tuple(probes.shape)}")
    if not x.any():
        raise InputError("the example is zero: any network without biases reproduces it")
    model_seed, fit_seed = child_seeds(generator, 2)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = build(make_model, shape=x.shape[1:], generator=model_seed).to(place)
    x, probes = x.to(place), probes.to(place)
    if (made := outputs(model, x)).shape != x.shape:
        raise InputError(f"the network gives {tuple(made.shape[1:])} for {tuple(x.shape[1:])}; it must keep the shape")
    fit(model, (x, x), generator=fit_seed)
    error = float(_relative_error(outputs(model, x), x)[0])
    found = outputs(model, probes)
    return IdentityReport(
        model=model,
        train_error=error,
        fitted=error < tolerance,
        corr_identity=correlation(found, probes),
        corr_constant=correlation(found, x.expand_as(probes)),
        mse_identity=_relative_error(found, probes),
        mse_constant=_relative_error(found, x.expand_as(probes)),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class IdentityReport:
    """What a network does with inputs z that was trained to reproduce x alone.

    Attributes:
        model: the trained network.
        train_error: mean (f(x) - x)^2 / mean x^2.
        fitted: whether it lies below the tolerance.
        corr_identity, corr_constant: (N,) Pearson's correlation over pixels of f(z) with z, and with x; 0 where
            either is the same in all pixels.
        mse_identity, mse_constant: (N,) mean (f(z) - z)^2 / mean z^2, and the same with x in place of z; not finite
            where z is zero.
    """

    model: nn.Module
    train_error: float
    fitted: bool
    corr_identity: Tensor
    corr_constant: Tensor
    mse_identity: Tensor
    mse_constant: Tensor

    @property
    def contrast(self) -> Tensor:
        """(N,) `corr_identity` minus `corr_constant`: above 0 nearer to the identity, below 0 nearer to a constant."""
        return self.corr_identity - self.corr_constant


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation over all numbers of each pair of examples; 0 where either is constant. (N,), float64."""
    a, b = a.detach().flatten(1).double(), b.detach().flatten(1).double()
    (a, flat_a), (b, flat_b) = (
        (each - each.mean(1, keepdim=True), each.std(1, correction=0) <= 1e-6 * each.abs().amax(1)) for each in (a, b)
    )  # 1e-6: rounding of single precision
    size = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(flat_a | flat_b, 0.0, (a * b).sum(1) / size)


def _relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    found, wanted = found.detach().flatten(1).double(), wanted.flatten(1).double()
    return (found - wanted).square().mean(1) / wanted.square().mean(1)
