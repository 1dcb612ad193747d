import pytest
import torch

from phenoscope.core.errors import InputError
from phenoscope.data import gaussian_mixture, separable, sphere
from phenoscope.data.synthetic.gaussian import _divided


def test_a_mixture_has_the_means_spreads_and_weights_asked_for():
    means = torch.tensor([[0.0, 5.0, 1.0], [-4.0, 0.0, 1.0]])
    x, y = gaussian_mixture(60_000, means=means, std=(0.5, 2.0), weights=(1, 3), generator=0)
    assert abs(y.float().mean().item() - 0.75) < 5 * (0.75 * 0.25 / 60_000) ** 0.5
    for label, std in ((0, 0.5), (1, 2.0)):
        own = x[y == label]
        assert (own.mean(0) - means[label]).abs().max() < 5 * std / len(own) ** 0.5
        # the deviations of n values are off by 1 / sqrt(2 n) of themselves
        assert (own.std(0) / std - 1).abs().max() < 5 / (2 * len(own)) ** 0.5


def test_dtype_and_seed():
    one, same = (gaussian_mixture(5, means=[[0.0], [1.0]], dtype=torch.float64, generator=2) for _ in range(2))
    assert one[0].dtype == torch.float64 and torch.equal(one[0], same[0]) and one[1].dtype == torch.int64


@pytest.mark.parametrize(
    "knobs",
    [
        {"means": [1.0, 2.0]},
        {"means": [[1.0], [2.0]], "std": -1.0},
        {"means": [[1.0], [2.0]], "std": (1.0, 1.0, 1.0)},
        {"means": [[1.0], [2.0]], "weights": (1.0,)},
        {"means": [[1.0], [2.0]], "weights": (0.0, 0.0)},
    ],
)
def test_bad_mixtures_are_refused(knobs):
    with pytest.raises(InputError):
        gaussian_mixture(10, **knobs)
    with pytest.raises(InputError, match="n must"):
        gaussian_mixture(0, means=[[1.0]])


def test_points_on_a_sphere_have_its_radius_and_no_direction():
    x = sphere(20_000, 4, radius=3.0, generator=0)
    torch.testing.assert_close(x.norm(dim=1), torch.full((20_000,), 3.0))
    assert x.mean(0).norm().item() < 5 * 3 / 20_000**0.5
    second = x.T @ x / len(x)
    # E[x x^T] = radius^2 / d I = 2.25 I; 20,000 points leave about 0.02
    assert (second - 2.25 * torch.eye(4)).abs().max().item() < 0.1
    with pytest.raises(InputError, match="radius"):
        sphere(3, 4, radius=0.0)


def test_separable_classes_are_divided_by_a_support_vector_machine():
    from sklearn.svm import LinearSVC

    x, y = separable(60, 10, generator=0)
    assert x.shape == (60, 10) and set(y.tolist()) == {-1.0, 1.0}
    machine = LinearSVC(C=1e4, fit_intercept=False, max_iter=100_000).fit(x.numpy(), y.numpy())
    assert machine.score(x.numpy(), y.numpy()) == 1.0


def test_sets_that_no_plane_divides_are_told_and_drawn_again():
    square = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
    assert not _divided(square, torch.tensor([1.0, 1.0, -1.0, -1.0]))
    assert _divided(square[:3], torch.tensor([1.0, -1.0, 1.0]))
    x, y = separable(12, 2, shift=1.0, std=0.8, generator=0)  # one set in a few is separable
    assert _divided(x, y)
    with pytest.raises(InputError, match="separable"):
        separable(200, 2, shift=0.0, std=1.0, tries=3, generator=0)
