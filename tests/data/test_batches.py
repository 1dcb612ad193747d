import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from phenoscope.core.errors import InputError
from phenoscope.data import as_tensors, batches, digits
from phenoscope.data.batches import batch_count

X, Y = torch.arange(20.0).reshape(10, 2), torch.arange(10)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


def test_in_order_every_example_comes_once_and_the_last_batch_is_short():
    found = list(batches((X, Y), 4))
    assert [len(x) for x, _ in found] == [4, 4, 2]
    assert torch.equal(torch.cat([x for x, _ in found]), X)
    assert torch.equal(torch.cat([y for _, y in found]), Y)


def test_shuffled_every_example_comes_once_with_its_own_label():
    found = list(batches([X, Y], 4, generator=0, shuffle=True))
    x, y = torch.cat([x for x, _ in found]), torch.cat([y for _, y in found])
    assert not torch.equal(y, Y)
    assert torch.equal(y.sort().values, Y)
    assert torch.equal(x, X[y])


def test_a_seed_repeats_the_order_and_a_generator_goes_on():
    def order(generator):
        return torch.cat([y for _, y in batches((X, Y), 4, generator=generator, shuffle=True)]).tolist()

    assert order(7) == order(7)
    generator = torch.Generator().manual_seed(7)
    assert order(generator) == order(7)
    assert order(generator) != order(7)


def test_a_loaders_batches_pass_as_they_are():
    given = [(X[:3], Y[:3]), {"x": X, "y": Y}]
    assert all(one is other for one, other in zip(batches(given, 1, shuffle=True), given, strict=True))


def test_one_example_stays_a_batch():
    ((x, y),) = batches((X[:1], Y[:1]), 64)
    assert (x.shape, y.shape) == ((1, 2), (1,))


@pytest.mark.parametrize(
    ("data", "size", "message"),
    [
        ((X[:0], Y[:0]), 4, "empty"),
        ((X, Y[:9]), 4, "row"),
        ((X / 0, Y), 4, "NaN in 1 of 10"),
        ((X, Y), 0, "at least 1"),
        (X, 4, "pair"),
        (3, 4, "pair"),
        (digits(), 4, "split.train"),
    ],
)
def test_data_that_cannot_be_used_are_refused_before_the_first_batch(data, size, message):
    with pytest.raises(InputError, match=message):
        batches(data, size)


def test_the_number_of_batches_is_known_where_it_can_be():
    assert batch_count((X, Y), 4) == len(list(batches((X, Y), 4))) == 3
    assert batch_count(DataLoader(TensorDataset(X, Y), batch_size=3), 4) == 4
    assert batch_count(DataLoader(Stream(), batch_size=3), 4) is None
    assert batch_count(iter([(X, Y)]), 4) is None


@pytest.mark.parametrize("data", [(X, Y), DataLoader(TensorDataset(X, Y), batch_size=3), TensorDataset(X, Y), Stream()])
def test_any_data_as_one_pair_of_tensors(data):
    x, y = as_tensors(data)
    assert torch.equal(x, X) and torch.equal(y, Y)


def test_what_makes_no_tensors_is_named():
    with pytest.raises(InputError, match="gave no batches"):
        as_tensors([])
    with pytest.raises(InputError, match="list"):
        as_tensors([1, 2])
    with pytest.raises(InputError, match="NaN"):
        as_tensors([(X * torch.nan, Y)])
