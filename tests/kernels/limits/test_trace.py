import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope import kernels, models
from phenoscope.core.errors import InputError


def refused(model, *parts):
    with pytest.raises(InputError) as caught:
        kernels.infinite(model)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


class Calls(nn.Module):
    """Two linear layers and a forward pass given as a function."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 8)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


@pytest.mark.parametrize(
    ("layer", "hint"),
    [
        (nn.BatchNorm1d(8), "nn.LayerNorm"),
        (nn.PReLU(), "nn.LeakyReLU"),
        (nn.Softmax(1), "models.LinearAttention"),
        (nn.Bilinear(8, 8, 8), "no known"),
        (nn.Dropout2d(0.5), "nn.Dropout"),
        (nn.LSTM(8, 8), "no known"),
    ],
)
def test_a_layer_without_a_limit_is_named_with_its_place(layer, hint):
    net = nn.Sequential(nn.Linear(6, 8), nn.Sequential(nn.ReLU(), layer), nn.Linear(8, 1))
    refused(net, type(layer).__name__, "'1.1'", hint)


def test_spatial_layers_without_a_limit_are_named():
    for layer in (nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(1)):
        refused(nn.Sequential(nn.Conv2d(2, 8, 3), layer), type(layer).__name__, "'1'")
    refused(nn.Sequential(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 8, 3, groups=8)), "Conv2d at '1'", "groups=8")


def test_softmax_attention_is_refused_with_what_to_use():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.attention = nn.Linear(3, 8), nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            tokens = self.embed(x)
            return self.attention(tokens, tokens, tokens)[0]

    refused(Net(), "MultiheadAttention at 'attention'", "models.LinearAttention")
    refused(models.vit((1, 8, 8), 10, patch=4, width=16, depth=1, generator=0), "VisionTransformer", "len")


def test_functions_are_named_too():
    refused(Calls(lambda m, x: m.two(functional.softmax(m.one(x), 1))), "softmax in the forward pass of Calls")
    refused(Calls(lambda m, x: m.one(x) * m.other(x), other=nn.Linear(6, 8)), "mul in the forward pass of Calls")
    refused(Calls(lambda m, x: m.one(x) @ m.one.weight), "'one.weight'")
    refused(Calls(lambda m, x: torch.sort(m.one(x))[0]), "sort")


def test_what_cannot_be_traced_says_where():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    refused(nn.Sequential(nn.Linear(6, 8), Branching()), "torch.fx cannot trace Branching at '1'")


def test_shared_weights_and_correlated_sums_are_refused():
    shared = nn.Linear(8, 8)
    refused(nn.Sequential(nn.Linear(6, 8), shared, nn.ReLU(), shared), "more than once")
    tied = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    tied[2].weight = tied[0].weight
    refused(tied, "'2'", "more than once")
    # relu(a) and relu(b) of independent a and b have means that are not zero: the kernels of their sum do not just add
    net = Calls(lambda m, x: m.two(torch.relu(m.one(x)) + torch.relu(m.other(x))), other=nn.Linear(6, 8))
    refused(net, "correlated")


def test_an_activation_of_what_is_not_gaussian_is_refused():
    refused(nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.AvgPool2d(2), nn.ReLU()), "Gaussian")
    refused(nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.ReLU()), "Gaussian")
    refused(Calls(lambda m, x: torch.relu(torch.cat([m.one(x), m.other(x)], 1)), other=nn.Linear(6, 8)), "Gaussian")
    refused(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8)), "LayerNorm at '2'", "before the activation")
    mixed = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Flatten(), nn.ReLU(), nn.Linear(128, 1))
    with pytest.raises(InputError, match="before the flatten"):
        kernels.infinite(mixed)(torch.randn(2, 2, 6, 6))


def test_two_activations_in_a_row_are_one_function():
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = kernels.infinite(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.ReLU(), nn.Linear(8, 1)))(x)
    wanted = kernels.infinite(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)))(x)
    assert torch.equal(found.ntk, wanted.ntk)


def test_the_network_must_end_with_one_vector_that_depends_on_weights():
    refused(nn.Sequential(nn.Flatten(), nn.ReLU()), "behind a linear layer")
    refused(Calls(lambda m, x: (m.one(x), x)), "one tensor")
    with pytest.raises(InputError, match=r"4x4 positions: end it"):
        kernels.infinite(nn.Sequential(nn.Conv2d(2, 8, 3)))(torch.randn(2, 2, 6, 6))
    with pytest.raises(InputError, match=r"Linear at '1'.*flatten first"):
        kernels.infinite(nn.Sequential(nn.Conv2d(2, 8, 3), nn.Linear(4, 1)))(torch.randn(2, 2, 6, 6))


def test_what_is_done_to_the_inputs_is_done_to_them():
    x = torch.rand(3, 72, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tail = [nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 1)]

    class Prepared(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.net = nn.MaxPool2d(2), nn.Sequential(nn.Conv2d(2, 8, 2), *tail[1:])

        def forward(self, x):
            pictures = x.view(len_of(x), 2, 6, 6)
            return self.net(self.pool((pictures - 0.5) / 0.25))

    def len_of(x):
        return x.shape[0]

    ready = functional.max_pool2d((x.view(3, 2, 6, 6) - 0.5) / 0.25, 2)
    wanted = kernels.infinite(nn.Sequential(nn.Conv2d(2, 8, 2), *tail[1:]))(ready)
    assert torch.equal(kernels.infinite(Prepared())(x).ntk, wanted.ntk)
    normalized = kernels.infinite(nn.Sequential(nn.LayerNorm(72), nn.Linear(72, 8)))(x.view(3, 72)).nngp
    rows = functional.layer_norm(x, (72,))
    torch.testing.assert_close(normalized, rows @ rows.T / 216 + 1 / 216)


def test_tokens_and_images_may_be_turned_into_each_other():
    x = torch.randn(3, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    class Tokens(nn.Module):
        def __init__(self, order):
            super().__init__()
            self.patches, self.mix, self.out, self.order = (
                nn.Conv2d(2, 8, 2, stride=2),
                nn.Linear(8, 8),
                nn.Linear(8, 1),
                order,
            )

        def forward(self, x):
            images = self.patches(x)
            tokens = images.flatten(2).transpose(1, 2) if self.order == 0 else images.permute(0, 2, 3, 1).flatten(1, 2)
            return self.out(torch.relu(self.mix(tokens)).mean(1))

    as_images = nn.Sequential(
        nn.Conv2d(2, 8, 2, stride=2), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(8, 1)
    )
    wanted = kernels.infinite(as_images, sigma_w2=2.0, sigma_b2=0.1)(x)
    for order in (0, 1):
        found = kernels.infinite(Tokens(order), sigma_w2=2.0, sigma_b2=0.1)(x)
        torch.testing.assert_close(found.ntk, wanted.ntk, rtol=1e-12, atol=1e-12)


def test_one_position_may_be_taken_out():
    x = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.out = nn.Linear(5, 8), nn.Linear(8, 1)

        def forward(self, x):
            return self.out(torch.tanh(self.one(x))[:, 1])

    alone = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))
    torch.testing.assert_close(
        kernels.infinite(First())(x).ntk, kernels.infinite(alone)(x[:, 1]).ntk, rtol=1e-12, atol=0
    )
