import random

import numpy as np
import pytest
import torch
from mnist1d.data import get_dataset_args, make_dataset

from phenoscope.core.errors import InputError
from phenoscope.data import mnist1d

SMALL = dict(train=60, validation=20, test=20)


def test_an_integer_is_the_seed_of_the_authors_package():
    split = mnist1d(train=240, test=60, generator=42)
    arguments = get_dataset_args()
    arguments.num_samples = 300
    theirs = make_dataset(arguments)
    assert (arguments.seed, arguments.train_split) == (42, 0.8)
    for (x, y), suffix in ((split.train, ""), (split.test, "_test")):
        np.testing.assert_array_equal(x[:, 0].numpy(), theirs[f"x{suffix}"].astype(np.float32))
        np.testing.assert_array_equal(y.numpy(), theirs[f"y{suffix}"])


def test_parts_are_of_the_sizes_asked_for_and_classes_balanced_over_all():
    split = mnist1d(**SMALL, generator=1)
    assert [len(part[1]) for part in (split.train, split.validation, split.test)] == [60, 20, 20]
    y = torch.cat([split.train[1], split.validation[1], split.test[1]])
    assert y.bincount().tolist() == [10] * 10
    assert split.train[0].dtype == torch.float32 and split.train[1].dtype == torch.int64
    x = torch.cat([split.train[0], split.validation[0], split.test[0]]).double()
    assert abs(x.mean().item()) < 1e-6 and abs(x.std(correction=0).item() - 1) < 1e-6  # float32 values
    assert split.range == (x.min().item(), x.max().item())
    assert [len(p[1]) for p in (mnist1d(train=7, test=6).train, mnist1d(train=7, test=6).test)] == [7, 6]


def test_the_generator_decides_and_global_states_stay():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    one, same, other = (mnist1d(**SMALL, generator=seed).train[0] for seed in (5, 5, 2**62 + 6))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    generator = torch.Generator().manual_seed(0)
    assert not torch.equal(*(mnist1d(**SMALL, generator=generator).train[0] for _ in range(2)))


@pytest.mark.parametrize("sizes", [{"train": 0}, {"test": 0}, {"validation": -1}])
def test_empty_parts_are_refused(sizes):
    with pytest.raises(InputError):
        mnist1d(**sizes)
