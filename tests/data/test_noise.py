import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phenoscope.core.errors import InputError
from phenoscope.data import label_noise, randomize

Y = torch.arange(1000) % 10


@given(share=st.floats(0, 1), classes=st.integers(2, 12), kind=st.sampled_from(["uniform", "other", "next"]))
def test_at_most_the_share_is_wrong_and_the_mask_says_which(share, classes, kind):
    y = torch.arange(60) % classes
    noisy, wrong = label_noise(y, share, classes=classes, kind=kind, generator=0)
    assert torch.equal(wrong, noisy != y)
    assert noisy.min() >= 0 and noisy.max() < classes and noisy.dtype == y.dtype
    drawn = round(share * 60)
    assert int(wrong.sum()) <= drawn if kind == "uniform" else int(wrong.sum()) == drawn


def test_uniform_noise_leaves_one_in_classes_of_the_drawn_labels_true():
    noisy, wrong = label_noise(torch.zeros(100_000, dtype=torch.long), 0.5, classes=10, generator=0)
    # 50,000 draws, a tenth of which fall on the true class: standard deviation 67
    assert abs(int(wrong.sum()) - 45_000) < 5 * 67
    counts = noisy.bincount(minlength=10)[1:]
    assert (counts - 5000).abs().max() < 5 * 67


def test_next_noise_has_one_wrong_label_for_each_class():
    noisy, wrong = label_noise(Y, 0.3, classes=10, kind="next", generator=0)
    assert torch.equal(noisy[wrong], (Y[wrong] + 1) % 10)


def test_the_labels_given_stay_and_the_seed_decides():
    y = Y.clone()
    one, same, other = (label_noise(y, 0.2, classes=10, generator=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(y, Y) and torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize(
    ("y", "share", "knobs", "culprit"),
    [
        (Y, 1.5, {"classes": 10}, "share"),
        (Y, 0.5, {"classes": 9}, "0 to 8"),
        (Y - 1, 0.5, {"classes": 10}, "-1"),
        (Y.float(), 0.5, {"classes": 10}, "float32"),
        (Y[:, None], 0.5, {"classes": 10}, "shape"),
        (Y, 0.5, {"classes": 10, "kind": "pair"}, "pair"),
    ],
)
def test_bad_labels_and_shares_are_named(y, share, knobs, culprit):
    with pytest.raises(InputError, match=culprit):
        label_noise(y, share, **knobs)


X = torch.randn(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_random_labels_are_a_permutation():
    x, y = randomize((X, Y[:20]), "labels", generator=0)
    assert x is X and torch.equal(y.sort().values, Y[:20].sort().values) and not torch.equal(y, Y[:20])


@pytest.mark.parametrize("kind", ["shuffled_pixels", "random_pixels"])
def test_pixels_keep_their_values_and_their_channels_together(kind):
    x, y = randomize((X, Y[:20]), kind, generator=0)
    assert y is not None and x.shape == X.shape
    for new, old in zip(x.flatten(2), X.flatten(2), strict=True):
        assert sorted(map(tuple, new.T.tolist())) == sorted(map(tuple, old.T.tolist()))
    inner = X.flatten(2)[:, 0]
    orders = [[(inner[n] == value).nonzero().item() for value in row[0]] for n, row in enumerate(x.flatten(2))]
    assert (len({tuple(order) for order in orders}) == 1) == (kind == "shuffled_pixels")


def test_gaussian_inputs_have_the_mean_and_spread_of_the_data():
    big = 3 + 2 * torch.randn(2000, 20, generator=torch.Generator().manual_seed(0))
    x, _ = randomize((big, torch.zeros(2000).long()), "gaussian", generator=1)
    # 40,000 values of deviation 2: their mean is off by 0.01 a standard deviation
    assert abs(x.mean().item() - 3) < 0.07 and abs(x.std().item() - 2) < 0.05
    assert randomize((big, Y), "random_pixels", generator=0)[0].shape == big.shape


def test_other_kinds_are_refused():
    with pytest.raises(InputError, match="pixels"):
        randomize((X, Y[:20]), "pixels")
    with pytest.raises(InputError, match="places"):
        randomize((torch.zeros(4), Y[:4]), "random_pixels")
