import functools
import sys
import types

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from phenoscope import data
from phenoscope.core.errors import InputError

X = torch.arange(40.0).reshape(20, 2)
Y = torch.arange(20) % 3


class Pairs(Dataset):
    """A data set of (input, label) with labels that are plain integers."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index], int(Y[index])


@pytest.mark.parametrize(
    "form",
    [
        (X, Y),
        [X, Y],
        DataLoader(TensorDataset(X, Y), batch_size=7),
        [(X[:9], Y[:9]), (X[9:], Y[9:]), (X[:0], Y[:0])],
        Pairs(),
        TensorDataset(X, Y),
        lambda: (X, Y),
        lambda generator: (X, Y),
    ],
)
def test_every_form_becomes_the_same_split(form):
    split = data.load(form, generator=0)
    expected = data.load((X, Y), generator=0)
    assert [len(split.train[1]), len(split.test[1])] == [15, 5]
    for part in ("train", "test"):
        for mine, theirs in zip(getattr(split, part), getattr(expected, part), strict=True):
            assert torch.equal(mine, theirs)
    both = torch.cat([split.train[0], split.test[0]])
    assert torch.equal(both.sort(0).values, X)  # every example once
    assert split.range == (0.0, 39.0) and split.classes == ("0", "1", "2")


def test_labels_stay_with_their_inputs_and_the_seed_chooses_the_test_part():
    split, other = data.load((X, Y), generator=0), data.load((X, Y), generator=1)
    for x, y in (split.train, split.test):
        assert torch.equal(y, (x[:, 0] / 2).long() % 3)
    assert not torch.equal(split.test[0], other.test[0])


def test_a_factory_gets_the_generator_that_its_signature_names():
    assert torch.equal(data.load(data.digits, generator=7).test[1], data.digits(generator=7).test[1])
    small = functools.partial(data.digits, train=100)
    assert len(data.load(small, generator=7).train[1]) == 100
    seen = {}

    def make(**knobs):
        seen.update(knobs)
        return X, Y

    data.load(make, generator=3)
    assert seen == {"generator": 3}


def test_a_split_is_checked_and_given_back():
    split = data.digits()
    assert data.load(split) is split


def test_bytes_become_numbers_from_0_to_1():
    split = data.load((torch.arange(0, 256, 4, dtype=torch.uint8)[:, None], torch.arange(64) % 2), generator=0)
    assert split.train[0].dtype == torch.float32 and split.range == (0.0, pytest.approx(252 / 255))


def bad_split(**parts):
    whole = {"train": (X, Y), "validation": None, "test": (X, Y), "classes": ("a", "b", "c"), **parts}
    return data.Split(range=(0.0, 39.0), name="mine", **whole)


@pytest.mark.parametrize(
    ("form", "culprit"),
    [
        (3, "int"),
        (X, "Tensor"),
        ((X, Y[:5]), "one row"),
        ((X, Y.float()), "whole numbers"),
        ((X, Y[:, None]), "whole numbers"),
        ((X, torch.zeros(20).long()), "two classes"),
        ((X, Y - 1), "-1"),
        ((X.where(X != 5, torch.nan), Y), "NaN"),
        ((X[:0], Y[:0]), "empty"),
        ((X[:3], Y[:3]), "too few"),
        (iter([]), "no batches"),
        ([X], "batches"),
        ([(X, Y, Y)], "batches"),
        ([(X, Y), (X[:, :1], Y)], "batches"),
        (lambda: 3, "int"),
        (lambda: len, "builtin"),
        (bad_split(train=(X, Y.float())), "mine, train part"),
        (bad_split(test=(X, Y + 3)), "mine, test part"),
        (bad_split(test=(X[:, :1], Y)), "shape"),
        (bad_split(validation=(X * torch.nan, Y)), "validation part: x has NaN"),
    ],
)
def test_what_cannot_be_used_is_named(form, culprit):
    with pytest.raises(InputError, match=culprit):
        data.load(form)


def test_a_split_without_classes_may_have_real_labels():
    regression = bad_split(train=(X, X[:, 0]), test=(X, X[:, 0]), classes=())
    assert data.load(regression) is regression


def test_loaders_of_both_parts():
    loader = DataLoader(TensorDataset(X, Y), batch_size=6)
    split = data.from_loader(loader, (X[:4] + 100, Y[:4]), classes=["a", "b", "c"], name="mine")
    assert len(split.train[1]) == 20 and len(split.test[1]) == 4
    assert split.classes == ("a", "b", "c") and split.range == (0.0, 107.0) and split.name == "mine"
    assert len(data.from_loader(loader, generator=0).test[1]) == 5
    with pytest.raises(InputError, match="2 names for 3"):
        data.from_loader(loader, classes=["a", "b"])


class Pictures(Dataset):
    """Stands for a data set of torchvision."""

    classes = ("cat", "dog")

    def __init__(self, root, train=True, transform=None, download=False):
        from PIL import Image

        self.items = [(Image.new("RGB", (6, 4), (255, 0, 51 * k)), k % 2) for k in range(5 if train else 3)]
        self.transform, self.asked = transform, (root, download)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        image, label = self.items[index]
        return self.transform(image), label


def test_a_data_set_of_torchvision_by_name(monkeypatch):
    package = types.ModuleType("torchvision.datasets")
    package.Pictures = Pictures
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", package)
    split = data.from_torchvision("Pictures", "somewhere")
    assert split.train[0].shape == (5, 3, 4, 6) and split.test[0].shape == (3, 3, 4, 6)
    assert split.train[0][3, :, 0, 0].tolist() == [1.0, 0.0, pytest.approx(0.6)]
    assert split.classes == ("cat", "dog") and split.name == "Pictures"
    with pytest.raises(InputError, match="CIFAR11"):
        data.from_torchvision("CIFAR11", "somewhere")


def test_without_torchvision_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(InputError, match="install"):
        data.from_torchvision("CIFAR10", "somewhere")
