"""Wrong labels, and inputs without meaning."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.random import seeded


def label_noise(
    y: Tensor,
    share: float,
    *,
    classes: int,
    kind: Literal["uniform", "other", "next"] = "uniform",
    generator: torch.Generator | int | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw a share of the labels anew.

    Args:
        y: labels (N,).
        share: round(share N) labels are drawn anew, of examples chosen at random.
        classes: how many there are.
        kind: a new label is any class with the same probability ("uniform": 1 / classes of them stay as they were), any
            "other" class than the true one, or the "next" class, c + 1, the last being followed by the first.
        generator: what chooses and draws.

    Returns:
        The labels (N,), and which of them are now wrong (N,), bool.

    Raises:
        InputError: a share outside [0, 1], or labels that are not classes from 0 to `classes - 1`.

    Examples:
        >>> noisy, wrong = label_noise(torch.zeros(100, dtype=torch.long), 0.2, classes=10, kind="other", generator=0)
        >>> int(wrong.sum()), bool((noisy[wrong] > 0).all())
        (20, True)
    """
    if not 0 <= share <= 1:
        raise InputError(f"share must lie between 0 and 1, not {share}")
    if kind not in ("uniform", "other", "next"):
        raise InputError(f'kind must be "uniform", "other" or "next", not {kind!r}')
    if y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool:
        raise InputError(f"labels must be whole numbers of shape (N,), not {y.dtype} of shape {tuple(y.shape)}")
    if classes < 2 or (len(y) and not (int(y.min()) >= 0 and int(y.max()) < classes)):
        raise InputError(f"labels must be classes from 0 to {classes - 1}; theirs go from {y.min()} to {y.max()}")
    generator = seeded(generator)
    device = generator.device
    chosen = torch.randperm(len(y), generator=generator, device=device)[: round(share * len(y))].to(y.device)
    if kind == "uniform":
        new = torch.randint(classes, chosen.shape, generator=generator, device=device).to(y)
    elif kind == "other":
        step = torch.randint(1, classes, chosen.shape, generator=generator, device=device).to(y)
        new = (y[chosen] + step) % classes
    else:
        new = (y[chosen] + 1) % classes
    noisy = y.clone()
    noisy[chosen] = new
    return noisy, noisy != y


def randomize(
    data: tuple[Tensor, Tensor],
    kind: Literal["labels", "shuffled_pixels", "random_pixels", "gaussian"],
    *,
    generator: torch.Generator | int | None = None,
) -> tuple[Tensor, Tensor]:
    """Take the meaning out of data, as Zhang, Bengio, Hardt, Recht and Vinyals do (ICLR 2017, section 2.1).

    Args:
        data: inputs (N, C, ...) and labels (N,).
        kind: "labels": a random permutation of the labels. "shuffled_pixels": one permutation of the places of all
            inputs. "random_pixels": another for every input. "gaussian": noise of the mean and the standard deviation
            of all inputs together. Channels of a place stay together.
        generator: what draws.

    Returns:
        New inputs and labels.

    Raises:
        InputError: another kind, or inputs without places to permute.
    """
    x, y = data
    generator = seeded(generator)
    device = generator.device

    def permuted(count: int) -> Tensor:
        return torch.rand(count, flat.shape[2], generator=generator, device=device).argsort(1).to(x.device)

    if kind == "labels":
        return x, y[torch.randperm(len(y), generator=generator, device=device).to(y.device)]
    if kind == "gaussian":
        noise = torch.randn(x.shape, generator=generator, device=device).to(x)
        return x.mean() + x.std(correction=0) * noise, y
    if kind not in ("shuffled_pixels", "random_pixels"):
        raise InputError(f"kind must be labels, shuffled_pixels, random_pixels or gaussian, not {kind!r}")
    if x.ndim < 2:
        raise InputError(f"inputs need places to permute; their shape is {tuple(x.shape)}")
    flat = x[:, None] if x.ndim == 2 else x.flatten(2)
    order = permuted(1 if kind == "shuffled_pixels" else len(x))
    return flat.gather(2, order[:, None].expand(flat.shape)).reshape(x.shape), y
