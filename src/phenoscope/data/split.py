"""What every data set comes as."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A data set in parts.

    Attributes:
        train, validation, test: inputs (N, ...) and labels (N,); there may be no validation part.
        range: the lowest and the highest value that an input can have.
        classes: their names, in the order of the labels.
        name: of the data set.
    """

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor] | None
    test: tuple[Tensor, Tensor]
    range: tuple[float, float]
    classes: tuple[str, ...]
    name: str

    def to(self, device: torch.device | str) -> Split:
        """The same with every tensor on a device."""

        def moved(part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return part[0].to(device), part[1].to(device)

        validation = None if self.validation is None else moved(self.validation)
        return dataclasses.replace(self, train=moved(self.train), validation=validation, test=moved(self.test))
