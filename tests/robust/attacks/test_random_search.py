import pytest
import torch

from phenoscope import robust
from phenoscope.core.errors import InputError


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("shape", [(6, 10), (6, 1, 10), (6, 1, 4, 4)])
def test_it_finds_most_of_the_worst_margin_of_a_linear_classifier_without_gradients(norm, shape):
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(torch.Size(shape[1:]).numel(), generator=generator)
    x = torch.randn(shape, generator=generator)
    y = torch.zeros(6, dtype=torch.long)

    @torch.no_grad()
    def model(x):
        score = (x.flatten(1) @ w).detach()
        return torch.stack([score, torch.zeros_like(score)], 1)

    found = robust.random_search(model, x, y, eps=0.5, norm=norm, steps=600, generator=0)
    size = (found - x).flatten(1).norm(p={"inf": torch.inf, "2": 2, "1": 1}[norm], dim=1)
    assert (size <= 0.5 + 1e-5).all()
    gained = ((x - found).flatten(1) @ w) / (0.5 * w.norm(p={"inf": 1, "2": 2, "1": torch.inf}[norm]))
    assert gained.min() > 0.75  # 1 is the closed form; a random direction gains about 0


def test_it_breaks_a_network_whose_gradients_are_masked_where_pgd_does_not():
    def masked(x):
        return torch.stack([x.flatten(1).sum(1).round(decimals=1), torch.zeros(len(x))], 1) + 0 * x.flatten(1)[:, :2]

    x, y = torch.full((20, 1, 4, 4), 0.03), torch.zeros(20, dtype=torch.long)
    by_gradient = robust.pgd(masked, x, y, eps=0.05, random_start=False)
    searched = robust.random_search(masked, x, y, eps=0.05, steps=50, generator=0)
    assert (masked(by_gradient).argmax(1) == y).all()
    assert (masked(searched).argmax(1) != y).all()


def test_at_least_one_step():
    with pytest.raises(InputError, match="step"):
        robust.random_search(torch.nn.Identity(), torch.rand(2, 3), torch.zeros(2, dtype=torch.long), eps=0.1, steps=0)
