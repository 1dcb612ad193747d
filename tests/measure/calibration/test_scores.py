import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phenoscope.core.errors import InputError
from phenoscope.measure import calibration_error, nll


def drawn(n, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    p = (3 * torch.randn(n, classes, generator=generator, dtype=torch.float64)).softmax(1)
    return p, torch.randint(classes, (n,), generator=generator), generator


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 60), classes=st.integers(2, 7), bins=st.integers(1, 25), seed=st.integers(0, 99))
def test_the_error_is_the_sum_over_bins_written_out(n, classes, bins, seed):
    p, y, _ = drawn(n, classes, seed)
    top, right = p.max(1).values.numpy(), (p.argmax(1) == y).numpy()
    expected = 0.0
    for b in range(bins):
        inside = (top > b / bins) & (top <= (b + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - top[inside].mean())
    assert calibration_error(p, y, bins=bins) == pytest.approx(expected, abs=1e-12)  # both in double precision


def test_the_error_is_that_of_torchmetrics_and_the_likelihood_that_of_scikit_learn():
    classification = pytest.importorskip("torchmetrics.functional.classification")
    from sklearn.metrics import log_loss

    p, y, _ = drawn(500, 5)
    theirs = classification.multiclass_calibration_error(p, y, num_classes=5, n_bins=20, norm="l1")
    assert calibration_error(p, y) == pytest.approx(float(theirs), abs=1e-6)  # theirs sums in single precision
    assert nll(p, y) == pytest.approx(log_loss(y, p, labels=range(5)), rel=1e-12)


def test_a_predictor_that_draws_its_labels_is_calibrated_and_one_that_is_too_sure_is_not():
    p, _, generator = drawn(100_000, 4)
    y = torch.multinomial(p, 1, generator=generator)[:, 0]
    assert calibration_error(p, y) < 0.01
    sharper = p.square() / p.square().sum(1, keepdim=True)
    # a bin holds thousands of examples: its accuracy is off by about 0.005
    right = (p.argmax(1) == y).double().mean().item()
    assert calibration_error(sharper, y) == pytest.approx(sharper.max(1).values.mean().item() - right, abs=0.01)
    assert nll(sharper, y) > nll(p, y) == pytest.approx(-(p * p.log()).sum(1).mean().item(), abs=0.01)


def test_a_sure_prediction_falls_into_the_last_bin():
    p, y = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])
    assert calibration_error(p, y) == 0.5
    assert nll(p, y) == np.inf
    assert nll(p[:1], y[:1]) == 0


@pytest.mark.parametrize(
    ("p", "y", "said"),
    [
        (torch.randn(3, 2), torch.zeros(3, dtype=torch.long), "softmax"),
        (torch.tensor([[0.5, torch.nan]]), torch.zeros(1, dtype=torch.long), "softmax"),
        (torch.full((3, 2), 0.5), torch.tensor([0, 1, 2]), "labels go from 0 to 2"),
        (torch.full((3, 2), 0.5), torch.zeros(2, dtype=torch.long), r"classes of shape \(3,\)"),
        (torch.full((3,), 0.5), torch.zeros(3, dtype=torch.long), r"shape \(N, C\)"),
    ],
)
def test_what_is_no_prediction_is_refused(p, y, said):
    with pytest.raises(InputError, match=said):
        nll(p, y)
    with pytest.raises(InputError, match=said):
        calibration_error(p, y)
    with pytest.raises(InputError, match="at least 1 bin"):
        calibration_error(torch.full((1, 2), 0.5), torch.tensor([0]), bins=0)
