import warnings

import captum.attr
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.explain import integrated_gradients


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    ).to(dtype)


X = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize(
    ("rule", "theirs"), [("gauss", "gausslegendre"), ("midpoint", "riemann_middle"), ("right", "riemann_right")]
)
def test_equals_captum_under_the_same_rule(rule, theirs):
    net = network().eval()
    base = torch.randn(1, 2, 6, 6).double()
    expected = captum.attr.IntegratedGradients(net).attribute(X, base, target=1, n_steps=40, method=theirs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 40 steps are few for some of these paths
        found = integrated_gradients(net, X, 1, baseline=base, steps=40, rule=rule, chunk=7).values
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-9)


def test_saturation_gets_its_credit():
    result = integrated_gradients(Function(lambda x: 1 - torch.relu(1 - x)), torch.tensor([[2.0]]).double(), steps=200)
    # the integrand jumps at the middle, where an even number of nodes splits exactly
    torch.testing.assert_close(result.values, torch.ones(1, 1).double(), atol=1e-9, rtol=0)
    assert result.change == 1 and result.gap.abs() < 1e-9


def test_two_wirings_of_one_function_get_the_same():
    x = torch.tensor([[3.0, 1.0]]).double()
    f = Function(lambda x: torch.relu(torch.relu(x[:, 0]) - 1 - torch.relu(x[:, 1])))
    g = Function(lambda x: torch.relu(torch.relu(x[:, 0] - 1) - torch.relu(x[:, 1])))
    expected = torch.tensor([[1.5, -0.5]]).double()
    for net in (f, g):  # the integrand jumps once, so that 1000 midpoints are off by at most 3/1000
        found = integrated_gradients(net, x, steps=1000, rule="midpoint").values
        torch.testing.assert_close(found, expected, atol=3e-3, rtol=0)


def test_closed_forms_of_a_quadratic_and_a_linear_function():
    a = torch.randn(4, 4).double()
    x, x0 = torch.randn(3, 4).double(), torch.randn(1, 4).double()
    quadratic = Function(lambda x: ((x @ a) * x).sum(1))
    expected = x * (x @ ((a + a.T) / 2))
    torch.testing.assert_close(integrated_gradients(quadratic, x, steps=2).values, expected)
    line = nn.Linear(4, 2).double()
    found = integrated_gradients(line, x, 1, baseline=x0, steps=1, rule="right").values
    torch.testing.assert_close(found, (line.weight[1] * (x - x0)).detach())


def test_equal_inputs_of_a_symmetric_function_get_equal_values():
    product = Function(lambda x: x.prod(1))
    values = integrated_gradients(product, torch.full((1, 3), 1.7).double()).values
    torch.testing.assert_close(values, torch.full((1, 3), 1.7**3 / 3).double())


def test_absolute_gradients_or_one_node_at_the_end_would_not_add_up():
    net = Function(lambda x: 1 - torch.relu(1 - x))
    with pytest.warns(UserWarning, match="1 of 1 integrated gradients miss"):
        result = integrated_gradients(net, torch.tensor([[2.0]]), steps=1, rule="right")
    assert result.values == 0 and result.gap == -1 and result.relative_gap == 1


@settings(deadline=None, max_examples=20)
@given(count=st.integers(1, 5), chunk=st.integers(1, 9), seed=st.integers(0, 99))
def test_an_input_gets_the_same_alone_among_others_and_in_any_chunk(count, chunk, seed):
    net = network().train()  # in training mode batch norm would mix them
    x = torch.randn(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed)).double()
    whole = integrated_gradients(net, x, steps=64, output="probability", target=0, chunk=chunk)
    assert net.training
    alone = integrated_gradients(net, x[-1:], steps=64, output="probability", target=0)
    torch.testing.assert_close(whole.values[-1:], alone.values)
    assert whole.change.shape == whole.gap.shape == (count,)


def test_auto_adds_nodes_only_where_they_are_needed():
    calls = []

    def function(x):
        calls.append(len(x))
        return torch.relu(x[:, 0] - 0.97)

    x = torch.tensor([[1.0], [50.0]]).double()  # the first needs many nodes on (0.97, 1], the second few
    result = integrated_gradients(Function(function), x, steps="auto", rule="right", target=0)
    assert result.relative_gap.max() <= 0.05
    assert sum(calls) < 2 * (20 + 40) + 1280 * 2 + 20


def test_what_auto_cannot_reach_is_warned_about():
    jump = Function(lambda x: (x > 0.5).double() + 0 * x)  # all of the change is in a jump without a gradient
    with pytest.warns(UserWarning, match="1280 steps"):
        integrated_gradients(jump, torch.ones(1, 1).double(), steps="auto")


def test_no_warning_where_nothing_changes():
    integrated_gradients(network(), X, baseline=X)  # warnings are errors here
    integrated_gradients(Function(lambda x: 0 * x), torch.ones(1, 1))


def test_token_ids_are_explained_by_their_embedding():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(20, 6), nn.Flatten(), nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    ids, pad = torch.randint(20, (5, 4)), torch.zeros(1, 4, dtype=torch.long)
    found = integrated_gradients(net, ids, 1, layer="0", baseline=pad)
    theirs = captum.attr.LayerIntegratedGradients(net, net[0])
    expected = theirs.attribute(ids, pad.expand(5, 4), target=1, method="gausslegendre").detach().sum(-1)
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=1e-9)
    change = net(ids)[:, 1] - net(pad)[:, 1]
    torch.testing.assert_close(found.change, change.detach())
    inner = integrated_gradients(net, ids, 1, layer=net[2])
    assert inner.values.shape == (5, 8) and inner.gap.abs().max() < 1e-6  # a smooth path: Gauss is exact to rounding


def test_expected_gradients_of_a_linear_function_are_its_weights_times_the_mean_distance():
    line = nn.Linear(3, 1).double()
    x = torch.randn(4, 3).double()

    def sampler(n, generator):
        return torch.randn(n, 3, generator=generator).double()

    result = integrated_gradients(line, x, baseline=sampler, steps=400, generator=3)
    # the mean of 400 standard normals is off by 0.05 at one sigma; five are allowed
    assert ((result.values - line.weight * x) / line.weight).abs().max() < 0.25
    assert result.gap.abs().max() < 1e-12  # the change is that from the very same baselines
    again = integrated_gradients(line, x, baseline=sampler, steps=400, generator=3)
    assert torch.equal(result.values, again.values)


def test_expected_gradients_agree_with_the_integral_where_baselines_hardly_differ():
    net = network()
    exact = integrated_gradients(net, X, 0, output="probability")
    drawn = integrated_gradients(
        net, X, 0, output="probability", baseline=lambda n, _: torch.zeros(n, 2, 6, 6), steps=800, generator=0
    )
    # Monte Carlo over a alone: about 1/sqrt(800) of the spread of a gradient along the path
    assert (drawn.values - exact.values).norm() < 0.1 * exact.values.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_works_in_the_models_dtype(dtype):
    values = integrated_gradients(network(dtype), X, 0, output="probability").values
    assert values.dtype == dtype and values.isfinite().all()


def test_bad_input_is_named():
    net = network()
    for given_, said in (
        (dict(rule="simpson"), "simpson"),
        (dict(steps=0), "steps"),
        (dict(steps="many"), "many"),
        (dict(steps=2.5), "2.5"),
        (dict(layer="9"), "no layer '9'"),
        (dict(baseline="grey"), "grey"),
        (dict(baseline=lambda n, _: torch.zeros(n), steps=3), "sampler gave"),
        (dict(baseline=lambda n, _: torch.zeros(n), steps="auto"), "sampler"),
    ):
        with pytest.raises(InputError, match=said):
            integrated_gradients(net, X, **given_)
