import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope import data as data_sets
from phenoscope import landscape, models, train
from phenoscope.core.errors import InputError

SPLIT = data_sets.digits()


def trained(seed, norm=None):
    model = models.mlp((1, 8, 8), 10, width=(12,), norm=norm, generator=seed)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    states = train.fit(
        model, SPLIT.train, steps=60, optimizer=sgd, generator=seed, states=train.States(at=(0, 20, 60))
    ).states
    return model, states


def bowl():
    """A loss |w - c|^2 of two weights: known everywhere."""
    model = nn.Linear(2, 1, bias=False).double()
    x = torch.diag(torch.tensor([2.0, 2.0], dtype=torch.float64).sqrt())
    center = torch.tensor([0.5, -0.25], dtype=torch.float64)
    return model, (x, (x @ center)[:, None]), center


def states(*weights):
    return [{"weight": torch.tensor([each], dtype=torch.float64)} for each in weights]


def test_a_plane_through_three_states_is_the_plane_of_a_known_bowl():
    model, data, center = bowl()
    found = landscape.surface(
        model, states([1.0, 1.0], [4.0, 1.0], [3.0, 3.0]), data, points=7, loss_fn=functional.mse_loss
    )
    # axes: from the first to the second, and what is at right angles to it
    np.testing.assert_allclose(found.state_x, [0, 3, 2], atol=1e-12)
    np.testing.assert_allclose(found.state_y, [0, 0, 2], atol=1e-12)
    expected = (1 + found.x - center[0].item()) ** 2 + (1 + found.y - center[1].item()) ** 2
    np.testing.assert_allclose(found.loss, expected.transpose("y", "x"), rtol=1e-12)  # float64
    assert found.loss.dims == ("y", "x") and found.x[0] == -0.75 and found.y[-1] == 2.5
    assert bool(found.error.isnull().all())


def test_a_line_holds_its_states_where_they_are():
    model, saved = trained(0)
    found = landscape.surface(model, [saved[0], saved[60]], SPLIT.test, points=5, margin=0.0)
    distance = sum(float((saved[60][n] - saved[0][n]).square().sum()) for n in saved[0]) ** 0.5
    np.testing.assert_allclose(found.state_x, [0, distance], rtol=1e-6)
    np.testing.assert_allclose(found.loss[[0, -1]], found.state_loss, rtol=1e-5)  # single precision
    assert float(found.state_error[1]) == pytest.approx(1 - train.accuracy(model, SPLIT.test), abs=1e-12)
    assert found.state_loss[0] > found.state_loss[1]
    curve = landscape.linear_barrier(*(loaded(model, saved[k]) for k in (0, 60)), SPLIT.test, points=5, metric="loss")
    np.testing.assert_allclose(found.loss, curve.curve, rtol=1e-4)


def loaded(model, state):
    import copy

    twin = copy.deepcopy(model)
    twin.load_state_dict(state)
    return twin


def test_random_directions_have_filters_of_the_states_size():
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.5]], dtype=torch.float64)
    model = nn.Linear(2, 2).double()
    state = {"weight": weight, "bias": torch.tensor([7.0, 7.0], dtype=torch.float64)}

    # a loss that shows the weights: sum of squares of what a filter was moved by, and of the bias
    def loss(outputs, y):
        return outputs[0, 0] * 0 + outputs.square().mean()

    x = torch.zeros(1, 2, dtype=torch.float64)
    flat = landscape.surface(model, [state], (x, x), random=2, points=3, loss_fn=loss, generator=0)
    np.testing.assert_allclose(flat.loss, 49)  # without inputs only the bias is seen: it does not move
    x = torch.eye(2, dtype=torch.float64)
    drawn = landscape.surface.__globals__["_filter_normalized"](state, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn["weight"].norm(dim=1), weight.norm(dim=1))
    found = landscape.surface(model, [state], (x, x), random=1, points=3, reach=2.0, loss_fn=loss, generator=0)
    expected = [
        float((torch.eye(2, dtype=torch.float64) @ (weight + t * drawn["weight"]).T + 7).square().mean())
        for t in (-2, 0, 2)
    ]
    np.testing.assert_allclose(found.loss, expected, rtol=1e-12)


def test_two_states_and_a_random_direction_make_a_plane():
    model, saved = trained(0)
    found = landscape.surface(model, [saved[20], saved[60]], SPLIT.test, random=1, points=3, generator=0)
    assert found.loss.sizes == {"y": 3, "x": 3}
    np.testing.assert_allclose(found.y, [-1, 0, 1])
    again = landscape.surface(model, [saved[20], saved[60]], SPLIT.test, random=1, points=3, generator=0)
    assert found.equals(again)
    assert (found.state_y == 0).all()


def test_batch_norm_statistics_are_recomputed_or_the_first_states():
    model, saved = trained(0, norm="batch")
    ends = [saved[20], saved[60]]
    fresh = landscape.surface(model, ends, SPLIT.test, points=3, margin=0.0, train=SPLIT.train)
    stale = landscape.surface(model, ends, SPLIT.test, points=3, margin=0.0, refresh_bn=False)
    curve = landscape.linear_barrier(
        *(loaded(model, end) for end in ends), SPLIT.test, points=3, metric="loss", train=SPLIT.train
    ).curve
    np.testing.assert_allclose(fresh.loss, curve, rtol=1e-4)
    expected = functional.cross_entropy(loaded(model, ends[0]).eval()(SPLIT.test[0]), SPLIT.test[1])
    assert float(stale.loss[0]) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert abs(float(stale.loss[-1] - fresh.loss[-1])) > 1e-4


def test_the_model_is_left_as_it_was():
    model, saved = trained(0, norm="batch")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    landscape.surface(model, [saved[0]], SPLIT.test, random=1, points=2, generator=0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) and model.training


def test_wrong_settings_are_named():
    model, data, _ = bowl()
    common = {"loss_fn": functional.mse_loss}
    for many, settings, words in (
        (([1.0, 1.0],), {}, "make 0 axes"),
        (([1.0, 1.0], [2.0, 1.0], [0.0, 3.0]), {"random": 1}, "make 3 axes"),
        (([1.0, 1.0], [1.0, 1.0]), {}, "equal or lie on one line"),
        (([1.0, 1.0], [2.0, 2.0], [3.0, 3.0]), {}, "equal or lie on one line"),
        (([1.0, 1.0], [2.0, 1.0]), {"points": 1}, "at least 2 points"),
    ):
        with pytest.raises(InputError, match=words):
            landscape.surface(model, states(*many), data, **common, **settings)
    with pytest.raises(InputError, match="no parameter 'weight'"):
        landscape.surface(model, [{"bias": torch.zeros(1)}], data, random=1, **common)
