from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import data, models, robust, train
from phenoscope.core.errors import InputError

SPLIT = data.digits(train=600, scale="unit", generator=0)
TEST = SPLIT.test[0][:150], SPLIT.test[1][:150]
BALL = {"eps": 0.1, "clip": (0, 1)}


@pytest.fixture(scope="module")
def fleet():
    adam = partial(torch.optim.Adam, lr=3e-3)
    make = partial(models.mlp, width=(32,))
    return train.fleet(make, SPLIT.train, members=2, epochs=12, optimizer=adam, generator=0, device="cpu")


def test_the_worst_of_all_attacks_counts_for_each_example(fleet):
    found = robust.evaluate(fleet[0], TEST, **BALL, strong=True, generator=0)
    assert found.attack.values.tolist() == ["clean", "ce", "margin", "ce-100", "targeted", "search"]
    assert found.robust_accuracy == found.correct.all("attack").mean()
    assert found.robust_accuracy <= found.accuracy.min()
    assert found.accuracy.sel(attack="clean") == pytest.approx(train.accuracy(fleet[0], TEST))
    assert found.accuracy.sel(attack="search") > found.accuracy.sel(attack="ce-100")  # no gradients: weaker here


def test_natural_and_boundary_error_add_up_to_the_robust_error(fleet):
    whole = robust.evaluate(fleet[0], TEST, **BALL, generator=0)
    parts = robust.error_decomposition(fleet[0], TEST, **BALL, generator=0)
    n = whole.sizes["example"]
    counts = {name: round(float(parts[name]) * n) for name in parts}
    assert counts["natural"] + counts["boundary"] == counts["robust_error"]
    assert all(float(value) * n == pytest.approx(counts[name]) for name, value in parts.items())
    assert counts["robust_error"] == (~whole.correct.all("attack")).sum()


def test_it_agrees_with_the_closed_form_of_a_linear_network():
    # two classes, scores (w.x, 0): correct under attack where the margin exceeds eps |w|_1
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(300, 5, generator=generator), torch.randint(2, (300,), generator=generator)
    model = nn.Linear(5, 2, bias=False)
    w = torch.tensor([1.0, -2.0, 0.5, 0.0, 1.5])
    model.weight.data = torch.stack([w, torch.zeros(5)])
    margin = (1 - 2 * y) * (x @ w)
    found = robust.error_decomposition(model, (x, y), eps=0.2, generator=0)
    assert found.natural == pytest.approx((margin < 0).float().mean().item())
    assert found.robust_error == pytest.approx((margin < 0.2 * 5.0).float().mean().item())


def test_a_fleet_is_evaluated_as_its_members_are(fleet):
    together = robust.evaluate(fleet, TEST, **BALL, generator=0)
    assert together.correct.dims == ("member", "attack", "example")
    alone = [robust.evaluate(net, TEST, **BALL, generator=0) for net in fleet]
    clean = np.stack([each.accuracy.sel(attack="clean") for each in alone])
    assert np.allclose(together.accuracy.sel(attack="clean"), clean)
    worst = np.stack([each.robust_accuracy for each in alone])
    assert np.allclose(together.robust_accuracy, worst, atol=0.03)  # other random starts
    assert together.check.values.tolist() == ["huge-eps", "more-steps", "transfer"]


def test_members_may_have_data_of_their_own(fleet):
    parts = [(SPLIT.test[0][start : start + 60], SPLIT.test[1][start : start + 60]) for start in (0, 60)]
    found = robust.evaluate(fleet, parts, **BALL, generator=0)
    for member, (net, part) in enumerate(zip(fleet, parts, strict=True)):
        assert found.accuracy.sel(attack="clean")[member] == pytest.approx(train.accuracy(net, part))
    assert found.check.values.tolist() == ["huge-eps", "more-steps"]  # others' examples are not the same ones
    with pytest.raises(InputError, match="shape"):
        robust.evaluate(fleet, [parts[0], TEST], **BALL)
    with pytest.raises(InputError, match="3 pairs"):
        robust.evaluate(fleet, [*parts, parts[0]], **BALL)


def test_an_honest_network_raises_no_flag_and_the_network_is_left_alone(fleet):
    net = fleet[0].train()
    found = robust.evaluate(net, TEST, **BALL, surrogate=fleet[1], generator=0)
    assert not found.masked.any()
    assert found.checked.sel(check="huge-eps") == 0
    assert net.training and all(p.grad is None and p.requires_grad for p in net.parameters())


def test_a_network_whose_gradients_are_masked_is_flagged(fleet):
    class Masked(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):  # steps of a sixteenth have no slope: the attack sees only a little noise of it
            rough = (x * 16).round() / 16
            return self.inner(rough + 1e-12 * (x - x.detach())) * 1e3

    found = robust.evaluate(Masked(fleet[0]), TEST, **BALL, surrogate=fleet[1], generator=0)
    honest = robust.evaluate(fleet[0], TEST, **BALL, generator=0)
    masked = nn.Sequential(Masked(fleet[0]), nn.Hardtanh(-1e-3, 1e-3))  # saturated: no slope at all
    blind = robust.evaluate(masked, TEST, **BALL, surrogate=fleet[1], generator=0)
    assert blind.masked.sel(check="huge-eps") and blind.masked.sel(check="transfer")
    assert found.robust_accuracy <= honest.robust_accuracy + 0.2


def test_a_loader_gives_what_its_tensors_give(fleet):
    loader = DataLoader(TensorDataset(*TEST), batch_size=64)
    found, whole = (robust.evaluate(fleet[0], each, **BALL, generator=0) for each in (loader, TEST))
    assert found.correct.shape == whole.correct.shape
    assert (found.correct.sel(attack="clean") == whole.correct.sel(attack="clean")).all()


def test_one_example_and_other_norms(fleet):
    one = TEST[0][:1], TEST[1][:1]
    for norm in ("2", "1"):
        found = robust.evaluate(fleet[0], one, eps=0.1, norm=norm, generator=0)
        assert found.sizes["example"] == 1


def test_bad_input_is_named(fleet):
    with pytest.raises(InputError, match="a fleet, not a function"):
        robust.evaluate(lambda x: x, TEST, eps=0.1)
    with pytest.raises(InputError, match="Split"):
        robust.evaluate(fleet[0], SPLIT, eps=0.1)
    with pytest.raises(InputError, match="clip"):
        robust.evaluate(fleet[0], (TEST[0] - 1, TEST[1]), **BALL)
