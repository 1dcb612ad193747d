import warnings

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope.core.errors import InputError
from phenoscope.explain import deeplift, gradient_x_input, pair_contribution
from phenoscope.models import resnet

RULES = ("rescale", "reveal-cancel", "genomics")


class Function(nn.Module):
    def __init__(self, function, *parts):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x):
        return self.function(x)


def mlp(act=nn.ReLU):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), act(), nn.Linear(9, 7), act(), nn.Linear(7, 3)).double()


def cnn(act=nn.ReLU):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), act(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(4, 5, 3), act(), nn.AvgPool2d(2)),
        nn.Sequential(nn.Flatten(), nn.Linear(5, 8), act(), nn.Dropout(), nn.Linear(8, 3)),
    ).double()
    net(torch.randn(50, 2, 8, 8).double())  # running statistics that are not 0 and 1
    return net


IMAGES = torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(1)).double()
ROWS = torch.randn(6, 6, generator=torch.Generator().manual_seed(2)).double()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.GELU])
def test_contributions_sum_to_the_change_of_the_logit(rule, act):
    for net, x in ((mlp(act), ROWS), (cnn(act), IMAGES)):
        x0 = torch.randn_like(x[:1])
        result = deeplift(net, x, 1, baseline=x0, rule=rule)
        change = net.eval()(x)[:, 1] - net(x0)[:, 1]
        torch.testing.assert_close(result.change, change.detach())
        assert result.gap.abs().max() < 1e-12  # an identity, in float64


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Softplus])
def test_rescale_equals_captum(act):
    # No nonlinearity next to a pooling layer: there captum's own convergence delta is far from zero.
    net = nn.Sequential(
        *(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2), act(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(4, 5), act(), nn.Linear(5, 3)),
    )
    net = net.double().eval()
    x0 = torch.randn_like(IMAGES[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = captum.attr.DeepLift(net).attribute(IMAGES.clone(), x0.expand_as(IMAGES), target=1).detach()
    torch.testing.assert_close(deeplift(net, IMAGES, 1, baseline=x0).values, theirs, rtol=1e-6, atol=1e-10)


def test_two_wirings_of_one_function_get_different_contributions():
    x = torch.tensor([[3.0, 1.0]]).double()
    f = Function(lambda x: torch.relu(torch.relu(x[:, 0]) - 1 - torch.relu(x[:, 1])))
    g = Function(lambda x: functional.relu(torch.relu(x[:, 0] - 1) - x[:, 1].relu()))
    torch.testing.assert_close(deeplift(f, x).values, torch.tensor([[1.5, -0.5]]).double())
    torch.testing.assert_close(deeplift(g, x).values, torch.tensor([[2.0, -1.0]]).double())


def test_saturated_inputs_get_credit_although_their_gradient_is_zero():
    net = Function(lambda x: 1 - torch.relu(1 - x.sum(1)))
    x = 1 + torch.rand(50, 2).double()
    result = deeplift(net, x)
    assert (gradient_x_input(net, x) == 0).all()
    torch.testing.assert_close(result.values.sum(1), torch.ones(50).double())
    assert (result.values > 0).all()


def test_the_minimum_of_two_inputs_is_credited_to_one_or_to_both():
    first, last = nn.Linear(2, 2, bias=False).double(), nn.Linear(2, 1, bias=False).double()
    first.weight.data = torch.tensor([[1.0, 0.0], [1.0, -1.0]]).double()  # u itself stays positive under the rectifier
    last.weight.data = torch.tensor([[1.0, -1.0]]).double()
    net = nn.Sequential(first, nn.ReLU(), last)  # u - relu(u - v)
    x = 0.1 + 1.9 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0)).double()
    y = x.min(1).values
    torch.testing.assert_close(deeplift(net, x, rule="reveal-cancel").values, (y / 2)[:, None].expand(200, 2))
    smaller = (x == y[:, None]).double() * y[:, None]
    torch.testing.assert_close(deeplift(net, x, rule="rescale").values, smaller)


@pytest.mark.parametrize("rule", RULES)
def test_a_linear_network_gives_weights_times_the_difference(rule):
    net = nn.Sequential(nn.Linear(6, 4), nn.Identity(), nn.Linear(4, 3)).double()
    x0 = torch.randn(1, 6).double()
    expected = (net[2].weight @ net[0].weight)[1] * (ROWS - x0)
    torch.testing.assert_close(deeplift(net, ROWS, 1, baseline=x0, rule=rule).values, expected.detach())


@pytest.mark.parametrize("rule", RULES)
def test_at_the_baseline_all_is_zero(rule):
    assert torch.equal(deeplift(cnn(), IMAGES, 0, baseline=IMAGES, rule=rule).values, torch.zeros_like(IMAGES))


def test_genomics_rescales_behind_convolutions_and_reveals_behind_dense_layers():
    conv_only = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 6), nn.Flatten()).double()
    for net, x, twin in ((conv_only, IMAGES, "rescale"), (mlp(), ROWS, "reveal-cancel")):
        other = "reveal-cancel" if twin == "rescale" else "rescale"
        found = deeplift(net, x, 0, rule="genomics").values
        torch.testing.assert_close(found, deeplift(net, x, 0, rule=twin).values)
        assert (found - deeplift(net, x, 0, rule=other).values).abs().max() > 1e-3


def test_functions_reused_modules_and_in_place_layers_are_ruled_like_modules():
    plain, act, inplace = mlp(), nn.ReLU(), nn.ReLU(inplace=True)
    expected = deeplift(plain, ROWS, 2).values

    def reused(x):
        return plain[4](act(plain[2](act(plain[0](x)))))

    def functions(x):
        h = plain[0](x).clamp(min=0)
        h = plain[2](h)
        h.relu_()
        return plain[4](h)

    def in_place(x):
        h = plain[0](x)
        inplace(h)
        return plain[4](functional.relu(plain[2](h), inplace=True))

    for function in (reused, functions, in_place):
        torch.testing.assert_close(deeplift(Function(function, plain), ROWS, 2).values, expected)


def test_overlapping_and_tied_windows_pass_on_all_of_the_change():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(3, stride=1), nn.Flatten(), nn.Linear(64, 2)
    ).double()
    for x0 in (0.0, torch.randn_like(IMAGES[:1])):
        assert deeplift(net, IMAGES, 0, baseline=x0).gap.abs().max() < 1e-12


def test_a_residual_network_is_complete_and_left_as_it_was():
    net = resnet(depth=50, width=0.125, generator=0).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(2, 3, 32, 32)
    result = deeplift(net, x, baseline="blur")
    # rounding of 50 layers in float32
    assert result.gap.abs().max() < 1e-3 * result.values.abs().sum()
    assert net.training and all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_what_has_no_rule_is_refused_by_name():
    gate = nn.Linear(6, 6).double()
    for function, said in (
        (lambda x: torch.sigmoid(gate(x)) * x, "mul"),
        (lambda x: x.softmax(1), "softmax"),
        (lambda x: functional.layer_norm(x, (6,)), "layer_norm"),
        (lambda x: torch.where(x > 0, x, -x), "gt"),
        (lambda x: x @ x.T, "matmul"),
        (lambda x: 1 / x, "rdiv|reciprocal|truediv"),
        (lambda x: functional.batch_norm(x, None, None, training=True), "batch_norm"),
        (lambda x: x.detach(), "detach"),
    ):
        with pytest.raises(InputError, match=f"no rule for ({said})"):
            deeplift(Function(function, gate), ROWS, 0)
    with pytest.raises(InputError, match="no reveal-cancel rule for Function"):
        deeplift(Function(torch.relu), ROWS, 0, rule="reveal-cancel")
    with pytest.raises(InputError, match="rule must be"):
        deeplift(mlp(), ROWS, rule="zplus")


def test_a_way_that_depends_on_the_data_is_refused():
    def branching(x):
        return torch.relu(x) if next(ways) else torch.tanh(x)

    ways = iter([0, 0, 1])  # of the decision, the baseline and the input
    with pytest.raises(InputError, match="another way"):
        deeplift(Function(branching), ROWS)


def test_a_pair_of_classes_is_scored_by_the_difference_of_their_contributions():
    net = mlp()
    for rule in RULES:
        expected = deeplift(net, ROWS, 2, rule=rule).values - deeplift(net, ROWS, 0, rule=rule).values
        torch.testing.assert_close(pair_contribution(net, ROWS, 2, 0, rule=rule), expected)
    with pytest.raises(InputError, match="no class 3"):
        pair_contribution(net, ROWS, 0, 3)


def test_an_input_gets_the_same_alone_among_others_and_in_any_chunk():
    net = cnn().train()
    for rule in RULES:
        whole = deeplift(net, IMAGES, 1, rule=rule).values
        torch.testing.assert_close(deeplift(net, IMAGES[2:3], 1, rule=rule).values, whole[2:3])
        torch.testing.assert_close(deeplift(net, IMAGES, 1, rule=rule, chunk=4).values, whole)
