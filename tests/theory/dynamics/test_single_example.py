import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.theory import single_example_solution


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_gradient_descent_on_a_linear_layer_ends_there():
    layer, x = nn.Linear(16, 16, bias=False).double(), draw(1, 16)
    with torch.no_grad():
        layer.weight.copy_(draw(16, 16, seed=1) / 4)
    expected = single_example_solution(layer.weight, x)
    sgd = torch.optim.SGD(layer.parameters(), lr=0.9 / float(x.square().sum()))
    for _ in range(100):
        sgd.zero_grad()
        ((layer(x) - x).square().sum() / 2).backward()
        sgd.step()
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-10, atol=1e-12)  # the residual is 0.1^100


def test_it_copies_along_the_example_and_leaves_all_other_directions_alone():
    start, x, z = draw(8, 8), draw(8, seed=1), draw(8, seed=2)
    found = single_example_solution(start, x)
    torch.testing.assert_close(found @ x, x)
    across = z - (z @ x) / (x @ x) * x
    torch.testing.assert_close(found @ across, start @ across)
    assert float((found @ across - across).norm()) > 0.5  # neither the identity there
    torch.testing.assert_close(single_example_solution(torch.eye(8).double(), x), torch.eye(8).double())


def test_the_expected_error_off_the_example_is_that_of_the_random_start():
    d, v = 40, 0.3
    x, z = draw(d, seed=1), draw(d, seed=2)
    across = z - (z @ x) / (x @ x) * x
    errors = [
        (single_example_solution(v**0.5 * draw(d, d, seed=seed), x) @ z - z).square().sum() for seed in range(10, 310)
    ]
    expected = (1 + d * v) * across.square().sum()
    # a sum of 40 squares has a relative spread of about 0.22, its mean over 300 of 0.013
    assert float(torch.stack(errors).mean() / expected) == pytest.approx(1, abs=0.05)


def test_the_dtype_is_the_starts_and_sizes_must_match():
    assert single_example_solution(torch.eye(4), torch.ones(1, 2, 2)).dtype == torch.float32
    with pytest.raises(InputError, match=r"\(4, 4\)"):
        single_example_solution(torch.eye(3), torch.ones(4))
    for x in (torch.zeros(3), torch.tensor([1.0, float("inf"), 0.0])):
        with pytest.raises(InputError, match="finite and not zero"):
            single_example_solution(torch.eye(3), x)
