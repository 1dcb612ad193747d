import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from phenoscope.core.errors import InputError
from phenoscope.measure import mi_binned, mi_gaussian_linear, mi_kde


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def bits(n):
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=n)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_known_function_of_the_input_has_its_exact_information(dtype):
    x = bits(3).to(dtype)
    y = (x[:, 0] > 0).long()
    parity = mi_binned(x.prod(1, keepdim=True), y, range=(-1, 1))
    assert parity.input == pytest.approx(1, abs=1e-12) and parity.label == pytest.approx(0, abs=1e-12)
    first = mi_binned(x[:, :1], y, range=(-1, 1))
    assert first.input == pytest.approx(1, abs=1e-12) and first.label == pytest.approx(1, abs=1e-12)
    both = mi_binned(x[:, :2].sum(1, keepdim=True), y, range=(-2, 2))  # -2, 0, 0, 2: 1.5 bits, half of one on y
    assert both.input == pytest.approx(1.5, abs=1e-12) and both.label == pytest.approx(0.5, abs=1e-12)
    whole = mi_binned(x, y)
    assert whole.input == pytest.approx(3, abs=1e-12) and whole.label == pytest.approx(1, abs=1e-12)


def test_two_clusters_are_one_bit():
    acts = torch.cat([0.01 * torch.randn(50, 4, generator=rng()), 0.01 * torch.randn(50, 4, generator=rng(1)) + 10])
    y = torch.arange(100) % 2
    assert mi_binned(acts, y, bins=30, range=(-5, 15)).input == pytest.approx(1, abs=1e-12)
    # from 0.01 apart to 20 apart, with noise of 1: the clusters are what can be told; both bounds agree
    for bound in ("upper", "lower"):
        assert mi_kde(acts, y, noise_var=1.0, bound=bound).input == pytest.approx(1, abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 60), units=st.integers(1, 40), count=st.integers(1, 12), seed=st.integers(0, 99))
def test_it_agrees_with_sklearn_on_the_symbols(n, units, count, seed):
    # 40 units of 12 bins are more symbols than 64 bits hold: they are numbered, not hashed
    acts = torch.rand(n, units, generator=rng(seed), dtype=torch.float64)
    acts = acts[torch.randint(n, (n,), generator=rng(seed))]  # repeated rows, so that symbols are shared
    y = torch.randint(3, (n,), generator=rng(seed + 1))
    found = mi_binned(acts, y, bins=count, range=(0, 1))
    places = np.floor(acts.numpy() * count).clip(0, count - 1)
    symbols = np.unique(places, axis=0, return_inverse=True)[1].reshape(-1)
    assert found.label == pytest.approx(mutual_info_score(symbols, y.numpy()) / math.log(2), abs=1e-9)
    assert found.input == pytest.approx(mutual_info_score(symbols, symbols) / math.log(2), abs=1e-9)
    assert found.label <= found.input + 1e-9 <= math.log2(n) + 2e-9


def test_the_order_the_sign_and_the_scale_of_units_do_not_matter():
    # ReLU units whose range is that of all values; a factor of 10 moves the range along
    acts = torch.randn(500, 5, generator=rng(), dtype=torch.float64).relu()
    y = torch.randint(2, (500,), generator=rng(1))
    plain = mi_binned(acts, y)
    assert mi_binned(10 * acts, y) == plain
    shuffled = mi_binned(acts[:, [3, 1, 4, 0, 2]], y)
    assert shuffled.input == pytest.approx(plain.input, abs=1e-12)
    assert mi_binned(acts.reshape(500, 5, 1), y) == plain
    # a fixed range is another matter: the outermost bin takes all that grows beyond it
    assert mi_binned(10 * acts, y, range=(0, 3)).input < plain.input - 0.5


def test_bins_decide_whether_a_saturating_layer_compresses():
    # the failure mode: the same map x -> tanh(g x) keeps all of x, whatever the gain
    x = torch.linspace(-2, 2, 1001, dtype=torch.float64)[:, None]
    y = (x[:, 0] > 0).long()
    soft, hard = torch.tanh(x), torch.tanh(10 * x)
    fixed = [mi_binned(acts, y, range=(-1, 1)).input for acts in (soft, hard)]
    assert fixed[0] - fixed[1] > 2
    # bins that are fine enough for the flat ends find all of it again: tanh(10 x) still moves by 1e-6 up to |x| = 0.7
    inner = slice(351, 650)
    fine = [mi_binned(acts[inner], y[inner], range=(-1, 1), bins=10**9).input for acts in (soft, hard)]
    assert fine == pytest.approx([math.log2(299)] * 2, abs=1e-9)
    # the noise of the other estimator does what the width of a bin does
    kde = [mi_kde(acts, y, noise_var=0.01).input for acts in (soft, hard)]
    assert kde[0] - kde[1] > 1
    finer = [mi_kde(acts[inner], y[inner], noise_var=1e-18).input for acts in (soft, hard)]
    assert finer == pytest.approx([math.log2(299)] * 2, abs=1e-3)


def test_probabilities_of_classes_are_taken_as_they_are():
    x = bits(2)
    soft = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]], dtype=torch.float64)

    def h(p):
        return -p * math.log2(p) - (1 - p) * math.log2(1 - p)

    wanted = h(0.55) - (h(0.1) + h(0.2)) / 2
    assert mi_binned(x, soft).label == pytest.approx(wanted, abs=1e-12)
    assert mi_binned(x[:, 1:], soft).label == pytest.approx(0, abs=1e-12)
    # certain labels in either form are the same
    y = torch.tensor([5, 5, 7, 7])
    sure = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert mi_binned(x, y) == mi_binned(x, sure)
    assert mi_kde(x, y).label == pytest.approx(mi_kde(x, sure).label, abs=1e-12)


def test_kde_bounds_bracket_a_linear_gaussian_layer():
    # 0.05 bits for the sample of 4000: the spread of the mean of log densities is about 0.02
    weight = torch.tensor([[1.0, 0.5], [-0.3, 0.8]], dtype=torch.float64)
    x = torch.randn(4000, 2, generator=rng(), dtype=torch.float64)
    y = (x[:, 0] > 0).long()
    exact = mi_gaussian_linear(weight, noise_var=0.1).input
    upper, lower = (mi_kde(x @ weight.T, y, noise_var=0.1, bound=bound).input for bound in ("upper", "lower"))
    assert lower <= exact + 0.05 and upper >= exact - 0.05
    assert upper - lower < 2  # and say something


@pytest.mark.parametrize(("bound", "scale"), [("upper", 2), ("lower", 8)])
def test_kde_is_its_formula_in_several_chunks(bound, scale, monkeypatch):
    from phenoscope.measure.information import estimators

    acts = torch.randn(30, 3, generator=rng()) + 100  # far from zero: distances must not cancel
    y = torch.arange(30) % 3

    def formula(rows):
        exponent = -(rows[:, None] - rows[None]).square().sum(2) / (scale * 0.2)
        return float(math.log(len(rows)) - torch.logsumexp(exponent, 1).mean()) / math.log(2)

    own = acts.double()
    wanted = formula(own), formula(own) - sum(formula(own[y == c]) for c in range(3)) / 3
    monkeypatch.setattr(estimators, "_DISTANCES", 100)
    found = mi_kde(acts, y, noise_var=0.2, bound=bound)
    assert (found.input, found.label) == pytest.approx(wanted, abs=1e-8)


def test_a_linear_layer_has_its_closed_form():
    # one unit: channel capacity; two parallel ones add up
    assert mi_gaussian_linear(torch.tensor([[3.0]]), noise_var=1.0).input == pytest.approx(math.log2(10) / 2)
    two = mi_gaussian_linear(torch.diag(torch.tensor([3.0, 1.0])), noise_var=1.0)
    assert two.input == pytest.approx((math.log2(10) + 1) / 2) and math.isnan(two.label)
    # y = x1 + noise, T = x1 + noise: correlation r, information -log2(1 - r^2) / 2
    found = mi_gaussian_linear(
        torch.tensor([[1.0, 0.0]]), torch.diag(torch.tensor([2.0, 5.0])), noise_var=0.5,
        teacher=torch.tensor([1.0, 0.0]), label_noise=1.0,
    )  # fmt: skip
    assert found.label == pytest.approx(-math.log2(1 - 4 / (2.5 * 3)) / 2)
    assert found.label < found.input


def test_one_input_tells_nothing():
    one, y = torch.ones(1, 3), torch.zeros(1, dtype=torch.long)
    for found in (mi_binned(one, y), mi_kde(one, y)):
        assert found.input == 0 and found.label == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda a, y: mi_binned(a, y, bins=0), "bins"),
        (lambda a, y: mi_binned(a, y, range=(1, 1)), "range"),
        (lambda a, y: mi_binned(a * float("nan"), y), "not finite in 4 of 4"),
        (lambda a, y: mi_binned(a, y[:3]), "labels"),
        (lambda a, y: mi_binned(a, y.double()), "labels"),
        (lambda a, y: mi_binned(a, torch.ones(4, 2)), "sum to 1"),
        (lambda a, y: mi_binned(a[:0], y[:0]), "at least one"),
        (lambda a, y: mi_kde(a, y, noise_var=0.0), "noise_var"),
        (lambda a, y: mi_kde(a, y, bound="middle"), "bound"),
        (lambda a, y: mi_gaussian_linear(a[0], noise_var=1), "matrix"),
        (lambda a, y: mi_gaussian_linear(a, torch.eye(3), noise_var=1), "as many"),
        (lambda a, y: mi_gaussian_linear(a, noise_var=0), "noise_var"),
        (lambda a, y: mi_gaussian_linear(a, noise_var=1, teacher=torch.zeros(2)), "variance"),
    ],
)
def test_what_has_no_information_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call(torch.arange(8.0).reshape(4, 2), torch.tensor([0, 1, 0, 1]))
