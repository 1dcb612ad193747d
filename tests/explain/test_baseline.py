import pytest
import torch

from phenoscope.core.errors import InputError
from phenoscope.explain.baseline import baseline_for


def test_numbers_and_tensors_are_spread_over_the_inputs():
    x = torch.randn(3, 2, 4, 4)
    assert torch.equal(baseline_for(x, 0.5), torch.full_like(x, 0.5))
    one = torch.randn(2, 4, 4).double()
    assert torch.equal(baseline_for(x, one), one.float().expand(3, 2, 4, 4))


def test_the_mean_is_the_inputs_own_by_channel():
    x = torch.randn(3, 2, 4, 5)
    found = baseline_for(x, "mean")
    torch.testing.assert_close(found[1, 0], x[1, 0].mean().expand(4, 5))
    torch.testing.assert_close(baseline_for(x.flatten(1), "mean")[2], x[2].mean().expand(40))


def test_a_blur_keeps_flat_images_and_takes_the_detail_out_of_others():
    flat = torch.full((1, 3, 16, 16), 0.7)
    torch.testing.assert_close(baseline_for(flat, "blur"), flat)
    noise = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    blurred = baseline_for(noise, "blur")
    assert blurred.shape == noise.shape and blurred.std() < 0.3 * noise.std()  # white noise shrinks by 1/(2 s sqrt(pi))
    assert baseline_for(torch.randn(1, 1, 2, 2), "blur").shape == (1, 1, 2, 2)


def test_bad_input_is_named():
    x = torch.randn(3, 2, 4, 4)
    for wrong, said in (("zero", "'zero'"), (torch.zeros(5), r"\(5,\)")):
        with pytest.raises(InputError, match=said):
            baseline_for(x, wrong)
    with pytest.raises(InputError, match="needs images"):
        baseline_for(torch.randn(3, 4), "blur")
