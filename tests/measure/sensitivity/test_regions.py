import pytest
import torch
from torch import nn

from phenoscope import data, models
from phenoscope.core.errors import InputError
from phenoscope.measure import region_transitions


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def crossings(weight, bias, a, b):
    """Where on the way from a to b each unit of one hidden layer changes its sign."""
    before, after = weight @ a + bias, weight @ b + bias
    t = before / (before - after)
    return t[(t > 0) & (t < 1)]


@pytest.mark.parametrize("places", [2, 7])
@pytest.mark.parametrize("kind", ["relu", "leaky_relu"])
def test_on_a_line_one_hidden_layer_switches_where_its_units_are_zero(places, kind):
    net = models.mlp((6,), 3, width=(50,), activation=kind, init="torch", generator=0).double()
    ends = 3 * draw(2, 6)
    expected = crossings(net.linear1.weight.detach(), net.linear1.bias.detach(), *ends)
    assert len(expected) > 5
    assert region_transitions(net, data.trajectory(ends, places, kind="line")) == len(expected)
    there_and_back = region_transitions(net, ends, closed=True)
    assert there_and_back == 2 * len(expected)


def test_a_unit_that_switches_on_and_off_within_a_step_is_found_by_halving():
    net = nn.Sequential(nn.Linear(1, 3), nn.ReLU())
    bump = nn.Sequential(net, nn.Linear(3, 1), nn.ReLU())
    with torch.no_grad():  # a tent over (0.3, 0.5) whose top, above 0.055, is where the last unit is on
        net[0].weight.fill_(1.0)
        net[0].bias.copy_(torch.tensor([-0.3, -0.4, -0.5]))
        bump[1].weight.copy_(torch.tensor([[1.0, -2.0, 1.0]]))
        bump[1].bias.fill_(-0.055)
    path = torch.tensor([[0.0], [1.0]])
    fine = region_transitions(bump, torch.linspace(0, 1, 100_001)[:, None])
    assert region_transitions(bump, path) == fine == 5
    assert region_transitions(bump, path, tolerance=1.0) < fine  # ends alone miss the tent


def test_the_paths_points_do_not_change_the_count_of_a_deep_network():
    net = models.mlp((6,), 3, width=(20, 20), generator=0).double()
    ends = 3 * draw(2, 6)
    dense = region_transitions(net, data.trajectory(ends, 20_001, kind="line"))
    assert abs(region_transitions(net, ends) - dense) <= 2  # a stretch with a single change is not halved
    assert region_transitions(net, ends, chunk=1) == region_transitions(net, ends)


def test_hardtanh_has_three_states():
    for layer, low, high in ((nn.ReLU6(), 0, 6), (nn.Hardtanh(), -1, 1)):
        net = nn.Sequential(nn.Linear(1, 1, bias=False), layer)
        with torch.no_grad():
            net[0].weight.fill_(1.0)
        points = torch.linspace(low - 1.0, high + 1.0, 9)[:, None]
        assert region_transitions(net, points) == 2


def test_places_of_a_convolution_count_each_and_the_network_stays_as_it_was():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten())
    with torch.no_grad():
        net[0].weight.abs_()
        net[0].bias.zero_()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    ends = torch.stack([torch.ones(1, 4, 4), -torch.ones(1, 4, 4)])
    assert region_transitions(net, ends) == 2 * 16
    assert net.training and all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_what_cannot_switch_is_refused():
    with pytest.raises(InputError, match="no rectifier"):
        region_transitions(nn.Linear(2, 2), torch.zeros(2, 2))
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(InputError, match="two points"):
        region_transitions(net, torch.zeros(1, 2))
    with pytest.raises(InputError, match="tolerance"):
        region_transitions(net, torch.zeros(2, 2), tolerance=0)
