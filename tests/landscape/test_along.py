import pytest
import torch
from torch.nn import functional

from phenoscope import data as data_sets
from phenoscope import landscape, models
from phenoscope.landscape import along

SPLIT = data_sets.digits()


@pytest.mark.parametrize("norm", [None, "batch"])
def test_how_many_points_are_taken_together_changes_nothing(monkeypatch, norm):
    a, b = (models.cnn((1, 8, 8), 10, width=4, norm=norm, generator=seed) for seed in range(2))
    part = SPLIT.test[0][:100], SPLIT.test[1][:100]
    whole = landscape.linear_barrier(a, b, part, points=7, metric="loss").curve
    monkeypatch.setattr(along, "_ACTIVATION_BYTES", 1)
    one_by_one = landscape.linear_barrier(a, b, part, points=7, metric="loss").curve
    monkeypatch.setattr(along, "_BYTES", 1)
    alone = landscape.linear_barrier(a, b, part, points=7, metric="loss").curve
    # single precision, sums in another order
    torch.testing.assert_close(torch.tensor(one_by_one.values), torch.tensor(whole.values), rtol=1e-5, atol=0)
    torch.testing.assert_close(torch.tensor(alone.values), torch.tensor(whole.values), rtol=1e-5, atol=0)


def test_losses_may_be_any_function_of_one_networks_outputs():
    model = models.mlp((1, 8, 8), 10, width=8, generator=0)
    part = SPLIT.test[0], SPLIT.test[1]

    def by_values(outputs, y):  # branches on values, which torch.func.vmap refuses
        return functional.cross_entropy(outputs, y) if float(outputs.sum()) > -1e9 else outputs.sum()

    found = landscape.linear_barrier(model, model, part, points=2, metric="loss", loss_fn=by_values).curve
    expected = functional.cross_entropy(model(part[0]), part[1]).item()
    assert float(found[0]) == pytest.approx(expected, rel=1e-5)


def test_labels_without_a_class_are_left_to_the_loss():
    model = models.mlp((1, 8, 8), 10, width=8, generator=0)
    y = SPLIT.test[1].clone()
    y[::2] = -100
    found = landscape.linear_barrier(model, model, (SPLIT.test[0], y), points=2, metric="loss").curve
    assert bool(found.notnull().all())
