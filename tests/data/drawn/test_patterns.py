import math

import pytest
import torch

from phenoscope.core.errors import InputError
from phenoscope.data import PATTERNS, pattern

SIDE = torch.arange(64.0) + 0.5
X, Y = SIDE[None, :].expand(64, 64), SIDE[:, None].expand(64, 64)


def drawn(kind, period=8.0, angle=0.0, phase=0.0):
    return pattern(kind, X, Y, period=torch.tensor(period), angle=torch.tensor(angle), phase=torch.tensor(phase))


@pytest.mark.parametrize("kind", [k for k in PATTERNS if k != "flat"])
def test_values_fill_minus_one_to_one_and_turn_with_the_phase(kind):
    value = drawn(kind, angle=0.4)
    assert value.shape == (64, 64) and value.min() >= -1 and value.max() <= 1
    assert value.min() < -0.9 and value.max() > 0.9
    assert (value - drawn(kind, angle=0.4, phase=1.0)).abs().max() > 0.5
    assert abs(drawn(kind, angle=0.4).mean().item()) < 0.35


@pytest.mark.parametrize("kind", ["stripes", "dots", "checks"])
def test_a_pattern_repeats_after_its_period(kind):
    value = drawn(kind, period=8.0)
    # float32 sines of arguments up to 50
    torch.testing.assert_close(value[:, 8:], value[:, :-8], rtol=0, atol=1e-4)
    spectrum = torch.fft.rfft2(value - value.mean()).abs()
    row, column = divmod(int(spectrum.argmax()), spectrum.shape[1])
    assert max(min(row, 64 - row), column) == 8  # 64 pixels hold eight periods


def test_stripes_run_across_their_angle():
    upright, lying = drawn("stripes"), drawn("stripes", angle=math.pi / 2)
    torch.testing.assert_close(upright, upright[:1].expand(64, 64))
    torch.testing.assert_close(lying, upright.T, rtol=0, atol=1e-4)


def test_flat_is_nothing_and_other_names_are_refused():
    assert not drawn("flat").any()
    with pytest.raises(InputError, match="plaid"):
        drawn("plaid")
