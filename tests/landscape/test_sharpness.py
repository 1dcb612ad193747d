import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope import models
from phenoscope.core.errors import InputError
from phenoscope.landscape import sharpness, top_eigenvalues


def quadratic(eigenvalues):
    """A linear model at the minimum of mean((w x)^2), whose Hessian is diagonal."""
    n = len(eigenvalues)
    model = nn.Linear(n, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    x = torch.diag((torch.tensor(eigenvalues, dtype=torch.float64) * n / 2).sqrt())
    return model, (x, torch.zeros(n, 1, dtype=torch.float64))


def test_a_quadratic_rises_by_half_its_largest_eigenvalue_times_the_radius_squared():
    model, data = quadratic([4.0, 2.0, 1.0, 0.5])
    assert float(sharpness(model, functional.mse_loss, data)) == pytest.approx(4)
    for radius in (0.1, 2.0):
        found = sharpness(model, functional.mse_loss, data, radius=radius, steps=40, generator=0)
        assert float(found) == pytest.approx(4 * radius**2 / 2, rel=1e-3)  # the search converges geometrically
        assert float(found) <= 4 * radius**2 / 2 * (1 + 1e-12)


def test_a_linear_loss_rises_by_its_slope_times_the_radius():
    model = nn.Linear(3, 1, bias=False).double()
    data = torch.tensor([[3.0, 4.0, 0.0]], dtype=torch.float64), torch.zeros(1)
    found = sharpness(model, lambda out, y: out.mean(), data, radius=2.0, generator=0)
    assert float(found) == pytest.approx(10, rel=1e-9)  # |(3, 4, 0)| * 2, reached to rounding


def test_the_search_beats_random_points_of_the_sphere():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    data = torch.randn(60, 4), torch.randint(3, (60,))
    found = sharpness(model, functional.cross_entropy, data, radius=0.5, generator=0)
    model.requires_grad_(False)
    before = functional.cross_entropy(model(data[0]), data[1])
    weights = nn.utils.parameters_to_vector(model.parameters())
    rises = []
    for _ in range(50):
        step = torch.randn_like(weights)
        nn.utils.vector_to_parameters(weights + 0.5 * step / step.norm(), model.parameters())
        rises.append(float(functional.cross_entropy(model(data[0]), data[1]) - before))
    assert float(found) > 2 * max(rises)


def test_it_is_the_top_eigenvalue_without_a_radius_and_leaves_the_network_alone():
    model = models.cnn((1, 8, 8), 10, norm="batch", generator=0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = torch.randn(8, 1, 8, 8), torch.randint(10, (8,))
    assert sharpness(model, functional.cross_entropy, data, radius=0.1, steps=2, generator=0) > 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    small = models.mlp((1, 8, 8), 10, width=4, generator=0)
    expected = top_eigenvalues(small, functional.cross_entropy, data, generator=0)[0]
    assert sharpness(small, functional.cross_entropy, data, generator=0) == expected


def test_wrong_settings_are_named():
    model, data = quadratic([1.0, 2.0])
    for settings in ({"radius": 0.0}, {"radius": 1.0, "steps": 0}):
        with pytest.raises(InputError, match="radius must be positive"):
            sharpness(model, functional.mse_loss, data, **settings)
