import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import data as data_sets
from phenoscope import models, train
from phenoscope.core.errors import InputError
from phenoscope.landscape import interpolate, linear_barrier

SPLIT = data_sets.digits()


def trained(seed, *, steps=150, norm=None, width=16):
    model = models.mlp((1, 8, 8), 10, width=(width,), norm=norm, generator=seed)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train.fit(model, SPLIT.train, steps=steps, optimizer=sgd, generator=seed)
    return model


def test_ends_are_exact_and_whole_numbers_stay():
    a, b = trained(0, steps=5, norm="batch"), trained(1, steps=3, norm="batch")
    found = interpolate(a.state_dict(), b.state_dict(), [0.0, 0.3, 1.0])
    for name, value in found.items():
        start, end = a.state_dict()[name], b.state_dict()[name]
        assert value.shape == (3, *start.shape) and value.dtype == start.dtype
        assert torch.equal(value[0], start)
        if start.is_floating_point():
            assert torch.equal(value[2], end)
            torch.testing.assert_close(value[1], 0.7 * start + 0.3 * end)
        else:
            assert (value == start).all()


def test_states_of_different_architectures_are_refused():
    with pytest.raises(InputError, match="'w'"):
        interpolate({"w": torch.zeros(2)}, {"w": torch.zeros(3)}, [0.5])
    with pytest.raises(InputError, match="'v'"):
        interpolate({"w": torch.zeros(2)}, {"w": torch.zeros(2), "v": torch.zeros(1)}, [0.5])
    with pytest.raises(InputError, match="alphas"):
        interpolate({"w": torch.zeros(2)}, {"w": torch.zeros(2)}, [])


@pytest.mark.parametrize("metric", ["error", "loss"])
def test_a_network_and_itself_have_no_barrier_and_a_flat_curve(metric):
    model = trained(0)
    found = linear_barrier(model, copy.deepcopy(model), SPLIT.test, metric=metric)
    assert found.height == 0 and found.curve.sizes == {"alpha": 30} and found.interpolated is None
    assert float(found.curve.max() - found.curve.min()) == 0


def test_ends_of_the_curve_are_what_evaluation_gives():
    a, b = trained(0), trained(1)
    error = linear_barrier(a, b, SPLIT.test).curve
    expected = [1 - train.accuracy(m, SPLIT.test) for m in (a, b)]
    assert [float(error[0]), float(error[-1])] == pytest.approx(expected, abs=1e-12)
    loss = linear_barrier(a, b, SPLIT.test, metric="loss").curve
    expected = [float(functional.cross_entropy(m(SPLIT.test[0]), SPLIT.test[1]).detach()) for m in (a, b)]
    assert [float(loss[0]), float(loss[-1])] == pytest.approx(expected, rel=1e-5)  # single precision
    middle = copy.deepcopy(a)
    with torch.no_grad():
        for name, p in middle.named_parameters():
            p.copy_((p + b.get_parameter(name)) / 2)
    assert float(linear_barrier(a, b, SPLIT.test, points=3).curve[1]) == pytest.approx(
        1 - train.accuracy(middle, SPLIT.test), abs=1e-12
    )


def test_the_loss_of_a_convex_model_lies_below_the_chord_between_any_two_states():
    for seed in range(10):
        torch.manual_seed(seed)
        a, b = (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double() for _ in range(2))
        found = linear_barrier(a, b, SPLIT.test, metric="loss")
        ends = float(found.curve[0]), float(found.curve[-1])
        chord = ends[0] + found.curve.alpha * (ends[1] - ends[0])
        assert float((found.curve - chord).max()) <= 1e-6
        # so that what the height sees of it is only how far the higher end lies above the mean of both
        assert found.height <= abs(ends[0] - ends[1]) / 2 + 1e-6


def test_permuted_hidden_units_are_the_same_function_behind_a_barrier():
    model = trained(0)
    twin = copy.deepcopy(model)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        twin.linear1.weight.copy_(model.linear1.weight[order])
        twin.linear1.bias.copy_(model.linear1.bias[order])
        twin.logits.weight.copy_(model.logits.weight[:, order])
    found = linear_barrier(model, twin, SPLIT.train)
    assert float(found.curve[0]) == float(found.curve[-1])
    assert found.height > 0.1


class Unknown(nn.Module):
    """What the fleet does not know: the points are taken one after another."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        if bool(x.isnan().any()):  # branches on values
            raise ValueError
        return self.network(x)


def test_any_module_gives_the_same_as_a_known_one():
    a, b = trained(0, norm="batch"), trained(1, norm="batch")
    known = linear_barrier(a, b, SPLIT.test, train=SPLIT.train, points=5, metric="loss")
    found = linear_barrier(Unknown(a), Unknown(b), SPLIT.test, train=SPLIT.train, points=5, metric="loss")
    torch.testing.assert_close(*(torch.from_numpy(each.curve.values) for each in (found, known)), rtol=1e-5, atol=0)


def test_batch_norm_statistics_are_those_of_the_training_data_at_every_point():
    a, b = trained(0, norm="batch"), trained(1, norm="batch")
    found = linear_barrier(a, b, SPLIT.test, train=SPLIT.train, points=3, metric="loss")
    middle = copy.deepcopy(a)
    with torch.no_grad():
        for name, p in middle.named_parameters():
            p.copy_((p + b.get_parameter(name)) / 2)
    # torch's own recomputation, over batches of the same size
    torch.optim.swa_utils.update_bn(DataLoader(TensorDataset(*SPLIT.train), batch_size=256), middle)
    expected = functional.cross_entropy(middle.eval()(SPLIT.test[0]), SPLIT.test[1])
    assert float(found.curve[1]) == pytest.approx(float(expected.detach()), rel=1e-4)
    # without, they fit neither end nor middle: of a net with batch norm that raises the barrier
    stale = linear_barrier(a, b, SPLIT.test, points=3, metric="loss", refresh_bn=False)
    assert stale.interpolated is None
    assert found.interpolated.curve.equals(stale.curve) and stale.height != found.height
    assert float(stale.curve[0]) == pytest.approx(
        float(functional.cross_entropy(a.eval()(SPLIT.test[0]), SPLIT.test[1]).detach()), rel=1e-5
    )


def test_networks_and_modes_are_left_as_they_were():
    a, b = trained(0, norm="batch").train(), trained(1, norm="batch").eval()
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in (a, b)]
    linear_barrier(a, b, DataLoader(TensorDataset(*SPLIT.test), batch_size=100), points=2)
    assert a.training and not b.training
    for model, state in zip((a, b), before, strict=True):
        assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_dropout_is_off_also_while_statistics_are_recomputed():
    model = models.mlp((1, 8, 8), 10, width=16, norm="batch", dropout=0.5, generator=0)
    first, second = (linear_barrier(model, model, SPLIT.test, points=2, metric="loss").curve for _ in range(2))
    assert first.equals(second)


def test_wrong_settings_are_named():
    a, b = trained(0, steps=1), trained(0, steps=1, width=8)
    with pytest.raises(InputError, match="not like network 0"):
        linear_barrier(a, b, SPLIT.test)
    with pytest.raises(InputError, match="metric"):
        linear_barrier(a, a, SPLIT.test, metric="accuracy")
    with pytest.raises(InputError, match="at least 2 points"):
        linear_barrier(a, a, SPLIT.test, points=1)
    with pytest.raises(InputError, match="not a number"):
        linear_barrier(a, a, (SPLIT.test[0], torch.zeros(397, 10)), loss_fn=functional.mse_loss)
    assert linear_barrier(
        a, a, (SPLIT.test[0], torch.zeros(397, 10)), loss_fn=functional.mse_loss, metric="loss"
    ).height == 0  # fmt: skip
