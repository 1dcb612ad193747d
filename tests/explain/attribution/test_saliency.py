import torch
from captum.attr import InputXGradient, Saliency
from torch import nn

from phenoscope.explain import gradient_x_input, integrated_gradients, saliency


def network(inplace=False):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.ReLU(inplace), nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace), nn.Flatten(), nn.Linear(64, 3)
    )


X = torch.randn(9, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def test_both_equal_captums():
    net = network().eval()
    leaf = X.clone().requires_grad_()
    # the same gradient by another chunk: rounding alone
    close = dict(rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(saliency(net, X, 1), Saliency(net).attribute(leaf, target=1).detach(), **close)
    expected = InputXGradient(net).attribute(leaf, target=1).detach()
    torch.testing.assert_close(gradient_x_input(net, X, 1), expected, **close)


def test_without_biases_gradient_times_input_adds_up_to_the_logit():
    net = nn.Sequential(nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)).double()
    x = torch.randn(6, 5).double()
    torch.testing.assert_close(gradient_x_input(net, x, 2).sum(1), net(x)[:, 2].detach())


def test_an_input_is_explained_alone_as_among_others_and_in_any_chunk():
    net = network().train()
    whole = saliency(net, X, 0)
    torch.testing.assert_close(saliency(net, X[3:4], 0), whole[3:4], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(saliency(net, X, 0, chunk=2), whole, rtol=1e-5, atol=1e-6)


def test_the_model_is_left_as_it_was_found():
    net = network(inplace=True).train()
    net[1].weight.requires_grad_(False)
    net[5].weight.grad = torch.ones_like(net[5].weight)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.inference_mode():
        x = X.clone()
        saliency(net, x)
    assert torch.equal(x, X)  # although the first layer works in place
    assert net.training and not net[1].weight.requires_grad
    assert torch.equal(net[5].weight.grad, torch.ones_like(net[5].weight)) and net[5].bias.grad is None
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    with torch.no_grad():
        assert saliency(net, X).shape == X.shape


def test_a_constant_score_has_no_gradient():
    assert torch.equal(saliency(network(), X, lambda out: out.new_ones(len(out))), torch.zeros_like(X))


def test_recurrent_networks_are_explained_in_evaluation_mode():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.gru(x)[0][:, -1])

    x = torch.randn(5, 6, 3)
    assert saliency(Reader(), x).shape == x.shape
    assert integrated_gradients(Reader(), x, steps=20).gap.abs().max() < 1e-4  # a smooth path
