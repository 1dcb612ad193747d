import dataclasses

import pytest
import torch

from phenoscope.data import Split


def parts(validation):
    pair = (torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))
    return Split(pair, validation, pair, (0.0, 1.0), ("zero",), "zeros")


def test_to_moves_every_part_and_keeps_the_rest():
    split = parts((torch.zeros(1, 1), torch.zeros(1, dtype=torch.long)))
    moved = split.to("meta")
    assert all(t.device.type == "meta" for part in (moved.train, moved.validation, moved.test) for t in part)
    assert split.train[0].device.type == "cpu"
    assert (moved.range, moved.classes, moved.name) == (split.range, split.classes, split.name)


def test_there_may_be_no_validation_part():
    assert parts(None).to("meta").validation is None


def test_a_split_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        parts(None).name = "other"
