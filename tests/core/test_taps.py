import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.core.taps import activations, layers, rows_at_once, suited, tap


def network(inplace=False):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace), nn.Dropout(), nn.Flatten(), nn.Linear(144, 3)
    )


def test_activations_are_what_the_layer_puts_out_in_evaluation_mode():
    net, x = network().train(), torch.randn(7, 1, 8, 8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = activations(net, x, "2", chunk=3)
    assert net.training and all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    expected = net.eval()[:3](x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)  # another chunk rounds otherwise
    assert not found.requires_grad and not net[2]._forward_hooks
    assert torch.equal(activations(net, x, net[2], chunk=3), found)
    assert activations(net, x[:1], "2").shape == (1, 4, 6, 6)


def test_a_layer_that_follows_in_place_does_not_spoil_them():
    assert activations(network(inplace=True), torch.randn(4, 1, 8, 8), "1").min() < 0


def test_of_several_outputs_the_first_counts():
    gru = nn.Sequential(nn.GRU(3, 5, batch_first=True))
    assert activations(gru, torch.randn(2, 4, 3), "0").shape == (2, 4, 5)


def test_a_tap_keeps_outputs_with_their_graph_and_is_closed_after_an_error():
    net = network()
    with tap(net, "0") as tapped:
        net(torch.randn(2, 1, 8, 8))
    assert tapped.output.requires_grad and tapped.output.shape == (2, 4, 6, 6)
    with pytest.raises(RuntimeError), tap(net, "0"):
        net(torch.randn(2, 3, 8, 8))
    assert not net[0]._forward_hooks


def test_a_replacement_stands_in_for_the_output():
    net, x = network().eval(), torch.randn(2, 1, 8, 8)
    inner = torch.randn(2, 4, 6, 6)
    with tap(net, "1", replace=inner):
        assert torch.equal(net(x), net[2:](inner))
    expected = net[2:](2 * net[:2](x))
    with tap(net, "1", replace=lambda output: 2 * output):
        torch.testing.assert_close(net(x), expected)


def test_a_layer_called_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x):
            return self.act(self.act(x) - 1)

    with pytest.raises(InputError, match="called 2 times"):
        activations(Twice(), torch.randn(3, 2), "act")
    net = Twice()
    with tap(net, "act") as tapped:
        net(torch.randn(3, 2))
    assert len(tapped.outputs) == 2
    with pytest.raises(InputError, match="called 2 times"):
        _ = tapped.output


def test_layers_are_picked_by_name_module_type_and_place():
    net = network()
    assert list(layers(net)) == ["0", "5"]
    assert list(layers(net, -1)) == list(layers(net, "5")) == list(layers(net, net[5])) == ["5"]
    assert list(layers(net, [nn.ReLU, 0])) == ["0", "2"]
    for wrong, said in (("7", "no layer '7'"), (2, "no layer 2"), (nn.GRU, "type GRU"), (nn.ReLU(), "this ReLU")):
        with pytest.raises(InputError, match=said):
            layers(net, wrong)


def test_inputs_take_the_models_dtype_unless_they_are_ids():
    net = network().double()
    assert suited(net, torch.zeros(1)).dtype == torch.float64
    assert suited(net, torch.zeros(1, dtype=torch.long)).dtype == torch.long
    assert activations(net, torch.randn(2, 1, 8, 8), "5").dtype == torch.float64


def test_bad_input_is_named():
    with pytest.raises(InputError, match="at least one example"):
        activations(network(), torch.zeros(0, 1, 8, 8), "0")
    with pytest.raises(InputError, match="chunk"):
        rows_at_once(torch.zeros(3, 4), 0)
