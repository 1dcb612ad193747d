import math

import pytest
import torch

from phenoscope.core.errors import InputError
from phenoscope.represent import alignment_uniformity, collapse


def sphere(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_embeddings_all_over_the_sphere_have_not_collapsed():
    found = collapse(3.0 * sphere(4000, 8))
    assert found.std_ratio == pytest.approx(1, abs=0.02)
    assert found.effective_rank == pytest.approx(8, abs=0.05)
    assert found.mean_cosine == pytest.approx(0, abs=0.01)


def test_equal_embeddings_have_collapsed():
    found = collapse(torch.ones(50, 8) * torch.rand(50, 1))  # equal on the sphere
    assert found.std_ratio == pytest.approx(0, abs=1e-7)
    assert found.effective_rank == pytest.approx(1)
    assert found.mean_cosine == pytest.approx(1)


def test_the_rank_counts_the_dimensions_that_are_used():
    z = torch.zeros(4000, 16)
    z[:, :3] = sphere(4000, 3)
    assert collapse(z).effective_rank == pytest.approx(3, abs=0.02)


def test_the_mean_cosine_is_that_of_all_pairs():
    z = sphere(7, 4)
    cosines = torch.nn.functional.cosine_similarity(z[:, None], z[None], dim=-1)
    off = cosines[~torch.eye(7, dtype=torch.bool)]
    assert collapse(z).mean_cosine == pytest.approx(off.mean().item(), abs=1e-6)


def test_alignment_and_uniformity_have_their_closed_forms():
    # orthogonal unit vectors lie sqrt(2) apart: the potential of all pairs is exp(-2 t)
    found = alignment_uniformity(torch.eye(5), torch.eye(5), t=1.5)
    assert found.alignment == 0 and found.uniformity == pytest.approx(-3.0)
    opposite = alignment_uniformity(torch.eye(5), -torch.eye(5), alpha=1.0)
    assert opposite.alignment == pytest.approx(2.0)
    # uniform on the circle: the mean of exp(-2 |u - v|^2) is exp(-4) I_0(4)
    found = alignment_uniformity(sphere(3000, 2), sphere(3000, 2, 1))
    assert found.uniformity == pytest.approx(-4 + math.log(torch.special.i0(torch.tensor(4.0)).item()), abs=0.02)
    assert found.alignment == pytest.approx(2, abs=0.15)  # independent points: 2 - 2 mean cosine, 4 standard errors


def test_both_depend_on_directions_alone():
    z1, z2 = sphere(20, 4), sphere(20, 4, 1)
    first, second = alignment_uniformity(z1, z2), alignment_uniformity(5 * z1, z2 * torch.rand(20, 1))
    assert first.alignment == pytest.approx(second.alignment) and first.uniformity == pytest.approx(second.uniformity)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="N at least 2"):
        collapse(torch.ones(1, 4))
    with pytest.raises(InputError, match="N at least 2"):
        collapse(torch.ones(4))
    with pytest.raises(InputError, match="one shape"):
        alignment_uniformity(torch.ones(3, 4), torch.ones(3, 5))
