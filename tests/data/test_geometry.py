import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from phenoscope import data
from phenoscope.core.errors import InputError
from phenoscope.data import geometry


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 12),
    d=st.integers(2, 6),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_pair_is_that_of_the_largest_cosine(n, d, seed, dtype):
    x = torch.randn(n, d, 1, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    cosines = torch.from_numpy(cosine_similarity(x.flatten(1).double().numpy())).triu(1)
    cosines[torch.ones(n, n).tril().bool()] = -2
    signed, lines = data.separation(x, opposite=False), data.separation(x)
    assert (signed.i, signed.j) == divmod(int(cosines.argmax()), n) and not signed.opposite
    size = torch.where(cosines == -2, cosines, cosines.abs())
    assert (lines.i, lines.j) == divmod(int(size.argmax()), n)
    assert math.cos(signed.angle) == pytest.approx(float(cosines.max()), abs=1e-9)  # rounding of cosines
    assert math.cos(lines.angle) == pytest.approx(float(size.max()), abs=1e-9)


@pytest.mark.parametrize("angle", [1e-3, 1e-7, 1e-12])
def test_a_small_angle_keeps_its_digits(angle):
    x = data.sphere(30, 20, dtype=torch.float64, generator=0)
    side = x[7] - (x[7] @ x[3]) * x[3]
    x[7] = math.cos(angle) * x[3] + math.sin(angle) * side / side.norm()
    found = data.separation(5 * x)
    # entries of 1 are stored to 1e-16, so that differences of 1e-12 are to 1e-4
    assert (found.i, found.j) == (3, 7) and found.angle == pytest.approx(angle, rel=1e-3)


def test_blocks_make_no_difference(monkeypatch):
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    whole = data.separation(x)
    monkeypatch.setattr(geometry, "_NUMBERS", 100)
    assert data.separation(x) == whole


def test_opposite_inputs_are_parallel_lines_only():
    x = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [1.0, 1.0]])
    assert data.separation(x) == data.geometry.Separation(0, 1, 0.0, True)
    assert data.separation(x, opposite=False).angle == pytest.approx(math.pi / 4)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(1, 3), "two inputs"),
        (torch.ones(3), "two inputs"),
        (torch.tensor([[1.0], [0.0]]), "input 1 is zero"),
        (torch.tensor([[float("nan")], [1.0]]), "input 0 is zero or not finite"),
    ],
)
def test_what_has_no_direction_is_refused(x, message):
    with pytest.raises(InputError, match=message):
        data.separation(x)
