import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import models
from phenoscope.core.errors import InputError
from phenoscope.landscape import density, top_eigenvalues


def setting(hidden=12, dtype=torch.float64):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 3)).to(dtype)
    return model, (torch.randn(30, 4, dtype=dtype), torch.randint(3, (30,)))


def explicit(model, data, loss_fn=functional.cross_entropy):
    """The whole Hessian, by another route than products."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    blocks = jacrev(jacrev(lambda at: loss_fn(functional_call(model, at, (data[0],)), data[1])))(parameters)
    sizes = {name: p.numel() for name, p in parameters.items()}
    return torch.cat([torch.cat([blocks[a][b].reshape(sizes[a], sizes[b]) for b in sizes], 1) for a in sizes]).double()


@pytest.mark.parametrize("hidden", [3, 12])  # 27 parameters are solved directly, 99 by Lanczos
def test_the_largest_eigenvalues_are_those_of_the_whole_matrix(hidden):
    model, data = setting(hidden)
    expected = torch.linalg.eigvalsh(explicit(model, data)).flip(0)[:4]
    found = top_eigenvalues(model, functional.cross_entropy, data, 4, generator=0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)  # the tolerance asked of ARPACK


def test_largest_means_in_value_and_not_in_magnitude():
    # loss -3 a^2 / 2 + b^2 / 2 of 100 weights: eigenvalues -3 and 1, others 0
    model = nn.Linear(100, 1, bias=False)
    data = torch.eye(100)[:2] * torch.tensor([[6**0.5], [2**0.5]]), torch.tensor([[-1.0], [1.0]])
    found = top_eigenvalues(model, lambda out, sign: (sign * out.square()).mean() / 2, data, 2, generator=0)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0]), rtol=1e-4, atol=1e-4)


def test_gauss_newton_has_no_negative_part_and_differs_from_the_hessian():
    model, data = setting()
    count = sum(p.numel() for p in model.parameters())
    gauss = top_eigenvalues(model, functional.cross_entropy, data, count, matrix="ggn")
    whole = top_eigenvalues(model, functional.cross_entropy, data, count)
    assert gauss.min() > -1e-12 and whole.min() < -1e-3
    rank = int((gauss > 1e-10 * gauss[0]).sum())
    assert rank <= 30 * 2  # 30 examples, and softmax has one direction without curvature


def test_single_precision_and_a_loader_give_the_same():
    model, data = setting()
    expected = top_eigenvalues(model, functional.cross_entropy, data, 2, generator=0)
    single, pair = model.float(), (data[0].float(), data[1])
    loader = DataLoader(TensorDataset(*pair), batch_size=7, shuffle=True)
    found = top_eigenvalues(single, functional.cross_entropy, loader, 2, generator=0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=0)  # 1e-4 asked, and single precision


def test_no_curvature_at_all_is_zero():
    model = nn.Linear(100, 2)
    data = torch.randn(5, 100), torch.zeros(5)
    assert top_eigenvalues(model, lambda out, y: out.mean(), data, 2, generator=0).tolist() == [0, 0]


def test_wrong_settings_are_named():
    model, data = setting(3)
    with pytest.raises(InputError, match="between 1 and the 27 parameters"):
        top_eigenvalues(model, functional.cross_entropy, data, 28)
    with pytest.raises(InputError, match="hessian"):
        top_eigenvalues(model, functional.cross_entropy, data, matrix="fisher")
    with torch.no_grad():
        model[0].weight.fill_(torch.nan)
    with pytest.raises(InputError, match="not finite"):
        top_eigenvalues(model, functional.cross_entropy, data)
    with pytest.raises(InputError, match="at least 1"):
        density(model, functional.cross_entropy, data, steps=0)
    with pytest.raises(InputError, match="width"):
        density(model, functional.cross_entropy, data, width=-1.0)


def test_lanczos_as_long_as_the_space_knows_all_moments():
    model, data = setting(3)
    matrix = explicit(model, data)
    found = density(model, functional.cross_entropy, data, steps=27, probes=40, generator=0)
    np.testing.assert_allclose(found.weight.sum("index"), 1, rtol=1e-12)
    values = torch.linalg.eigvalsh(matrix)
    for power in (1, 2):
        each = (found.weight * found.node**power).sum("index")
        error = float(each.std()) / 40**0.5
        assert abs(float(each.mean()) - float((values**power).mean())) < 4 * error
    # nodes of full length are eigenvalues of the matrix
    nearest = np.abs(found.node.values[..., None] - values.numpy()).min(-1)
    assert nearest.max() < 1e-8


def test_the_quadrature_of_one_vector_is_exact_for_polynomials_of_low_degree():
    model, data = setting()
    matrix = explicit(model, data)
    found = density(model, functional.cross_entropy, data, steps=6, probes=1, generator=3)
    signs = 2.0 * torch.randint(2, (len(matrix),), generator=torch.Generator().manual_seed(3)) - 1
    vector, power = signs.double() / len(signs) ** 0.5, torch.eye(len(matrix), dtype=torch.float64)
    for degree in range(12):
        expected = float(vector @ power @ vector)
        value = float((found.weight * found.node**degree).sum())
        assert value == pytest.approx(expected, rel=1e-8, abs=1e-10), degree  # float64, exact up to 2 * 6 - 1
        power = power @ matrix


def test_the_smoothed_density_integrates_to_one_and_shows_a_planted_outlier():
    model = nn.Linear(40, 1, bias=False).double()
    scale = torch.ones(40, dtype=torch.float64)
    scale[0] = 10.0
    data = torch.diag((scale * 20).sqrt()), torch.zeros(40, 1, dtype=torch.float64)  # Hessian diag(scale)
    found = density(model, functional.mse_loss, data, generator=0)
    assert float(found.density.integrate("eigenvalue")) == pytest.approx(1, abs=1e-3)
    above = found.density.where(found.eigenvalue > 5, 0).integrate("eigenvalue")
    assert float(above) == pytest.approx(1 / 40, abs=1e-3)
    assert found.density.idxmax() == pytest.approx(1, abs=0.1)


def test_the_network_is_left_as_it_was_found():
    model = models.cnn((1, 8, 8), 10, norm="batch", generator=0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = torch.randn(6, 1, 8, 8), torch.randint(10, (6,))
    top_eigenvalues(model, functional.cross_entropy, data, tolerance=0.05, generator=0)
    density(model, functional.cross_entropy, data, steps=3, probes=1, generator=0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and all(p.grad is None for p in model.parameters())
