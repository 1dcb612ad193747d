"""Networks that predict together: `Ensemble`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...data.batches import batches
from ..members import Fleet
from ..outputs import outputs


class Ensemble:
    """Networks whose probabilities are averaged.

    p(y | x) = mean over members of softmax(f_m(x))_y, the mixture of what the members predict; not the softmax of mean
    scores, which is another prediction and usually a surer one.

    Args:
        members: networks from a batch to scores (N, C), or a fleet of them, such as trained networks or samples that
            `Swag.sample` drew. They are not copied.
    """

    def __init__(self, members: Fleet | Sequence[nn.Module]) -> None:
        if not isinstance(members, Fleet) and (
            not isinstance(members, Sequence)
            or not members
            or not all(isinstance(member, nn.Module) for member in members)
        ):
            raise InputError("an ensemble is made of a fleet, or of at least one network, each an nn.Module")
        self.members = members

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> nn.Module:
        return self.members[index]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.members)

    def __repr__(self) -> str:
        return f"<Ensemble of {len(self)}>"

    def probabilities(self, x: Tensor, *, batch_size: int = 128) -> Tensor:
        """What the ensemble predicts, in evaluation mode.

        Args:
            x: inputs (N, ...).
            batch_size: examples at a time.

        Returns:
            (N, C), in double precision, so that small probabilities of sure networks do not vanish.

        Raises:
            InputError: inputs that `data.batches` refuses, or members whose outputs are not scores (N, C).
        """
        return torch.cat([each.mean(0) for each in self._by_batch(x, batch_size)])

    def member_probabilities(self, x: Tensor, *, batch_size: int = 128) -> Tensor:
        """What every member predicts: (members, N, C); arguments and errors as those of `probabilities`."""
        return torch.cat(list(self._by_batch(x, batch_size)), 1)

    def _by_batch(self, x: Tensor, batch_size: int) -> Iterator[Tensor]:
        for part, _ in batches((x, x.new_zeros(len(x))), batch_size):
            if isinstance(self.members, Fleet):
                scores = self.members.outputs(part)
            else:
                scores = torch.stack([outputs(member, part) for member in self.members])
            if scores.ndim != 3:
                raise InputError(f"a member's outputs have shape {tuple(scores.shape[1:])} instead of (N, C)")
            yield scores.double().softmax(2)
