import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.models import blocks, cnn1d, mlp, resnet, split_at


class Skip(nn.Module):
    """A network that is no chain: c(a(x) + b(a(x)))."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.a(x).relu()
        return self.c(h + self.b(h))


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("side", ["after", "before"])
def test_the_halves_of_a_chain_make_the_whole_at_every_layer(side):
    network = mlp((4,), 2, width=(5, 6), norm="layer", generator=0)
    for name, module in network.named_children():
        lower, upper = split_at(network, name, side=side)
        assert torch.equal(upper(lower(X)), network(X))
        assert module in ([*lower] if side == "after" else [*upper])
        assert len(lower) + len(upper) == len(network)


@pytest.mark.parametrize("layer", ["conv1", "block2.unit2", "block2.unit2.relu1", "block3", "postnorm", "logits"])
@pytest.mark.parametrize("side", ["after", "before"])
def test_a_residual_network_can_be_cut_where_no_shortcut_passes(layer, side):
    network = resnet((3, 8, 8), 4, width=0.0625, generator=0).eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    if layer.endswith("relu1"):
        with pytest.raises(InputError, match="way round"):
            split_at(network, layer, side=side)
        return
    lower, upper = split_at(network, layer, side=side)
    assert torch.equal(upper(lower(x)), network(x))


def test_any_network_is_cut_by_its_graph_and_shares_its_layers():
    network = Skip()
    for layer, side in (("a", "after"), ("c", "before"), (network.c, "after")):
        lower, upper = split_at(network, layer, side=side)
        assert torch.equal(upper(lower(X)), network(X))
    lower, _ = split_at(network, "a")
    assert lower.a is network.a
    with pytest.raises(InputError, match="way round 'b'"):
        split_at(network, "b")


def test_gradients_pass_through_the_cut():
    network = Skip()
    lower, upper = split_at(network, "a")
    h = lower(X).detach().requires_grad_()
    upper(h).sum().backward()
    assert h.grad.shape == (3, 4) and h.grad.any()


def test_what_cannot_be_cut_is_named():
    network = mlp((4,), 2, generator=0)
    with pytest.raises(InputError, match="no layer 'conv9'"):
        split_at(network, "conv9")
    with pytest.raises(InputError, match="side"):
        split_at(network, "act1", side="left")
    with pytest.raises(InputError, match="no layer"):
        split_at(network, nn.Linear(2, 2))

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x) if x.sum() > 0 else self.a(-x)

    with pytest.raises(InputError, match="cannot be traced"):
        split_at(Branches(), "a")


def test_the_network_itself_is_one_half():
    network = Skip()
    lower, upper = split_at(network, network)
    assert lower is network and torch.equal(upper(lower(X)), network(X))


def test_blocks_are_a_layer_with_weights_and_what_follows():
    network = cnn1d((1, 40), 5, width=(3, 4), hidden=(6,), norm="batch", generator=0).eval()
    found = blocks(network)
    assert [list(block._modules) for block in found] == [
        *(["conv1", "norm1", "act1"], ["conv2", "norm2", "act2", "flatten"], ["linear1", "act_linear1"], ["logits"]),
    ]
    x = h = torch.randn(2, 1, 40)
    for block in found:
        h = block(h)
    assert torch.equal(h, network(x))


def test_residual_units_are_blocks_whole():
    network = resnet((3, 8, 8), 4, width=0.0625, generator=0).eval()
    found = blocks(network)
    assert len(found) == 1 + 3 + 4 + 6 + 3 + 1
    x = h = torch.randn(1, 3, 8, 8)
    for block in found:
        h = block(h)
    assert torch.equal(h, network(x))


def test_no_order_and_no_weights_are_refused():
    with pytest.raises(InputError, match="Sequential"):
        blocks(Skip())
    with pytest.raises(InputError, match="no layer"):
        blocks(nn.Sequential(nn.ReLU()))
