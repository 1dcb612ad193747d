import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from phenoscope import kernels, models
from phenoscope.core.errors import InputError
from phenoscope.kernels.limits import compiled

W2, B2 = 1.6, 0.2
RELU = nn.ReLU()


def rows(n=5, d=6, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def images(n=4, channels=2, side=6, seed=0):
    return rows(n, channels * side * side, seed).view(n, channels, side, side)


def infinite(model, **kwargs):
    return kernels.infinite(model, **{"sigma_w2": W2, "sigma_b2": B2, **kwargs})


def cnn(*tail, **conv):
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1, **conv), RELU, nn.Conv2d(8, 8, 3, padding=1, **conv), nn.ReLU(), *tail
    )


GAP = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1))
FLAT = (nn.Flatten(), nn.Linear(288, 1))


def close(a, b, rtol=1e-12):
    torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(b.abs().max()))


def test_one_hidden_relu_layer_is_the_closed_form():
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    net = nn.Sequential(nn.Linear(2, 64, bias=False), nn.ReLU(), nn.Linear(64, 1, bias=False))
    found = kernels.infinite(net, sigma_w2=2.0)(x.double(), y.double())
    angle = math.acos(0.6)
    nngp = (math.sin(angle) + (math.pi - angle) * 0.6) / math.pi
    assert found.nngp.item() == pytest.approx(nngp, rel=1e-7)  # the inputs were float32
    assert found.ntk.item() == pytest.approx(nngp + 0.6 * 2 * (math.pi - angle) / (2 * math.pi) * 1.0, rel=1e-7)


@pytest.mark.parametrize("act", ["relu", "tanh", "leaky_relu", "gelu", "elu"])
def test_a_fully_connected_network_has_the_kernels_of_the_recursion(act):
    x, y = rows(), rows(3, seed=1)
    init = partial(models.init_gaussian, sigma_w2=W2, sigma_b2=B2)
    net = models.mlp((6,), 1, width=16, depth=3, activation=act, parametrization="ntk", init=init, generator=0)
    kernel = kernels.infinite(net)  # an NTKLinear brings its own variances
    for other in (None, y):
        found = kernel(x, other)
        wanted = kernels.mlp_kernels(x, other, depth=3, act=act, sigma_w2=W2, sigma_b2=B2)
        close(found.nngp, wanted.nngp)
        close(found.ntk, wanted.ntk)


def test_a_function_of_the_forward_pass_is_the_activation_it_computes():
    class Net(nn.Module):
        def __init__(self, f):
            super().__init__()
            self.f, self.one, self.two = f, nn.Linear(6, 8), nn.Linear(8, 1)

        def forward(self, x):
            return self.two(self.f(self.one(x.view(x.size(0), -1))))

    x = rows()
    pairs = [
        (lambda u: u * torch.sigmoid(u), nn.SiLU()),
        (lambda u: u.relu() - 0.2 * (-u).relu(), nn.LeakyReLU(0.2)),
        (lambda u: functional.relu(u, inplace=True), nn.ReLU()),
        (lambda u: u.clamp(min=0), nn.ReLU()),
        (lambda u: 2 * functional.gelu(u) / 2, nn.GELU()),
        (lambda u: 0.5 * (u + u.abs()), nn.ReLU()),
        (lambda u: (torch.exp(u) - torch.exp(-u)) / (torch.exp(u) + torch.exp(-u)), nn.Tanh()),
        (lambda u: functional.elu(u, alpha=1.0), nn.ELU()),
    ]
    for f, module in pairs:
        found, wanted = infinite(Net(f))(x), infinite(nn.Sequential(nn.Linear(6, 8), module, nn.Linear(8, 1)))(x)
        close(found.nngp, wanted.nngp, rtol=1e-9)  # the exponentials lose digits
        close(found.ntk, wanted.ntk, rtol=1e-9)


def test_images_of_one_pixel_are_rows():
    x = rows(5, 3)
    conv = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Tanh(), *GAP)
    dense = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    close(infinite(conv)(x.view(5, 3, 1, 1)).ntk, infinite(dense)(x).ntk)


def test_a_filter_as_large_as_the_image_is_a_row_of_all_its_pixels():
    x = images(3)
    conv = nn.Sequential(nn.Conv2d(2, 8, 6), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1))
    dense = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.ReLU(), nn.Linear(8, 1))
    for settings_ in ({}, {"parametrization": "standard"}, {"sigma_w2": None, "sigma_b2": None}):
        close(infinite(conv, **settings_)(x).ntk, infinite(dense, **settings_)(x).ntk)


def test_global_pooling_of_circular_convolutions_does_not_see_a_shift():
    kernel, x = infinite(cnn(*GAP, padding_mode="circular")), images()
    found, rolled = kernel(x), kernel(x, x.roll((2, 5), (2, 3)))
    close(rolled.nngp, found.nngp, 1e-10)
    close(rolled.ntk, found.ntk, 1e-10)
    plain = infinite(cnn(*GAP))  # zeros at the border do see it
    assert (plain(x, x.roll(2, 3)).ntk - plain(x).ntk).abs().max() > 1e-3


@pytest.mark.parametrize("tail", [GAP, FLAT, (nn.AvgPool2d(2, 1, 1), nn.Flatten(), nn.Linear(392, 1))])
def test_kernels_are_symmetric_and_positive(tail):
    x = images(7)
    for found in (infinite(cnn(*tail))(x), infinite(cnn(*tail), parametrization="standard")(x)):
        for each in (found.nngp, found.ntk):
            assert torch.equal(each, each.T)
            assert torch.linalg.eigvalsh(each)[0] > 0


@pytest.mark.parametrize("tail", [GAP, FLAT])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_blocks_of_any_size_give_the_same(tail, size):
    x, y = images(5), images(3, seed=1)
    whole, blocks = infinite(cnn(*tail)), infinite(cnn(*tail), examples_at_once=size)
    close(blocks(x).ntk, whole(x, x).ntk)
    close(blocks(x, y).nngp, whole(x, y).nngp)
    close(blocks(x, y).ntk, whole(torch.cat([x, y])).ntk[:5, 5:])


@settings(max_examples=10, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), st.sampled_from(["zeros", "circular", "reflect"]),
    st.integers(0, 2), st.booleans(),
)  # fmt: skip
def test_the_paths_of_all_pairs_and_of_the_diagonal_agree(size, stride, dilation, mode, padding, one_axis):
    """A flatten needs each position with itself only; one after a pooling of single pixels computes all pairs."""
    conv, pool = (nn.Conv1d, nn.AvgPool1d) if one_axis else (nn.Conv2d, nn.AvgPool2d)
    x = rows(3, 14).view(3, 2, 7) if one_axis else rows(3, 70).view(3, 2, 7, 5)
    layers = [
        conv(2, 8, size, stride=stride, padding=padding, dilation=dilation, padding_mode=mode), nn.ReLU(),
        conv(8, 8, 2, padding=1), nn.LeakyReLU(0.3),
    ]  # fmt: skip
    if (torch.tensor(x.shape[2:]) + 2 * padding <= dilation * (size - 1)).any():
        return
    features = nn.Sequential(*layers).double()(x).flatten(1).shape[1]
    head = (nn.Flatten(), nn.Linear(features, 1))
    found, wanted = infinite(nn.Sequential(*layers, pool(1), *head))(x), infinite(nn.Sequential(*layers, *head))(x)
    close(found.nngp, wanted.nngp, 1e-9)
    close(found.ntk, wanted.ntk, 1e-9)


class Erf(nn.Module):
    def forward(self, x):
        return torch.erf(x)


@pytest.mark.parametrize("tail", [GAP, FLAT])
@pytest.mark.parametrize("parametrization", ["ntk", "standard"])
def test_compiled_steps_are_those_of_torch(tail, parametrization, monkeypatch):
    net, x = cnn(*tail), images()
    net.insert(2, nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), Erf()))
    kernel = infinite(net, parametrization=parametrization)
    found = kernel(x)
    monkeypatch.setattr(compiled, "suits", lambda tensor: False)
    plain = kernel(x)
    close(found.nngp, plain.nngp, 1e-10)
    # at equal inputs the slope's kernel is the square root of rounding away from one, in one way or the other
    close(found.ntk, plain.ntk, 1e-7)


def averaged(make, x, draws, sigma=None):
    """Mean and its standard error of the tangent kernel and of outputs' products over networks."""
    ntk, nngp = [], []
    for seed in range(draws):
        torch.manual_seed(seed)
        net = make().double()
        ntk.append(kernels.empirical_ntk(net, x, outputs="trace"))
        with torch.no_grad():
            outputs = net(x)
        nngp.append(outputs @ outputs.T / outputs.shape[1])
    return [(torch.stack(each).mean(0), torch.stack(each).std(0) / draws**0.5) for each in (nngp, ntk)]


def agrees(found, sample, bias=0.03):
    """Within five standard errors, and what is left of order 1 / width."""
    mean, error = sample
    assert ((found - mean).abs() < 5 * error + bias * found.abs().max()).all(), (found, mean, error)


class NTKConv(nn.Conv2d):
    """A convolution in the NTK parametrization, to draw from."""

    def reset_parameters(self):
        nn.init.normal_(self.weight)
        nn.init.normal_(self.bias)

    def forward(self, x):
        scale = math.sqrt(W2 / self.weight[0].numel())
        return self._conv_forward(scale * x, self.weight, math.sqrt(B2) * self.bias)


def ntk_linear(inputs, outputs):
    return models.NTKLinear(inputs, outputs, sigma_w2=W2, sigma_b2=B2)


@pytest.mark.parametrize(("head", "width"), [("gap", 96), ("flat", 96)])
def test_wide_convolutional_networks_have_these_kernels_on_average(head, width):
    x = images(3, side=4)

    def make(conv, linear):
        tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear(width, 8)]
        if head == "flat":
            tail = [nn.Flatten(), linear(4 * width, 8)]
        return nn.Sequential(
            conv(2, width, 3, padding=1), nn.ReLU(), conv(width, width, 3, padding=1, stride=2), nn.ReLU(), *tail
        )

    nngp, ntk = averaged(lambda: make(NTKConv, ntk_linear), x, 40)
    found = infinite(make(nn.Conv2d, nn.Linear))(x)
    agrees(found.nngp, nngp)
    agrees(found.ntk, ntk)


def test_networks_as_torch_draws_them_have_this_covariance_on_average():
    x = rows(4)

    def make():
        return nn.Sequential(nn.Linear(6, 512), nn.ReLU(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 512))

    outputs = []
    for seed in range(20):
        torch.manual_seed(seed)
        with torch.no_grad():
            out = make().double()(x)
        outputs.append(out @ out.T / 512)
    sample = torch.stack(outputs)
    # a hidden bias of variance 1 / (3 width) beside terms of order 0.1 is the largest part of what is left
    agrees(kernels.infinite(make())(x).nngp, (sample.mean(0), sample.std(0) / 20**0.5), bias=0.03)


def test_the_laws_variances_are_those_of_reset_parameters():
    torch.manual_seed(0)
    for layer, fan_in in ((nn.Linear(50, 4000), 50), (nn.Conv2d(5, 4000, 3), 45), (nn.Conv1d(10, 4000, 4), 40)):
        # 4000 biases: relative standard error of the variance of a uniform law sqrt(0.8 / 4000) = 0.014
        assert fan_in * float(layer.weight.detach().var()) == pytest.approx(1 / 3, rel=0.02)
        assert 3 * fan_in * float(layer.bias.detach().var()) == pytest.approx(1.0, rel=0.07)
    x = rows(3, 50)
    first = kernels.infinite(nn.Sequential(nn.Linear(50, 8)))(x).nngp
    close(first, x @ x.T / 150 + 1 / 150)
    second = kernels.infinite(nn.Sequential(nn.Linear(50, 8), nn.Linear(8, 8)))(x).nngp
    close(second, first / 3)  # the hidden bias vanishes


def test_convolutions_may_be_drawn_as_torch_does():
    x = images(3)
    net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Flatten(), nn.Linear(128, 1))
    patches = functional.unfold(x, 3)  # (3, 18, 16)
    covariance = torch.einsum("ncp,mcp->nm", patches, patches) / 16 / (3 * 18) + 1 / (3 * 18)
    close(kernels.infinite(net)(x).nngp, covariance / 3)


def test_without_bias_there_is_none():
    x = rows()
    with_bias, without = (
        nn.Sequential(nn.Linear(6, 8, bias=on), RELU, nn.Linear(8, 1, bias=on)) for on in (True, False)
    )
    close(infinite(without, sigma_b2=0.7)(x).ntk, infinite(with_bias, sigma_b2=0.0)(x).ntk)
    standard = infinite(without, parametrization="standard")(x).ntk
    assert (
        standard < infinite(with_bias, sigma_b2=0.0, parametrization="standard")(x).ntk
    ).all()  # its gradient is one


def test_the_standard_parametrization_has_the_gradients_of_torchs_own_weights():
    x, width = rows(3), 256

    def make():
        net = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 8))
        for layer in net[::2]:
            nn.init.normal_(layer.weight, std=math.sqrt(W2 / layer.in_features))
            nn.init.normal_(layer.bias, std=math.sqrt(B2))
        return net

    _, ntk = averaged(make, x, 30)
    agrees(infinite(make(), parametrization="standard")(x).ntk, ntk)


def test_the_width_multiplier_takes_the_widening_back():
    def make(width):
        return nn.Sequential(nn.Linear(6, width), RELU, nn.Linear(width, width), RELU, nn.Linear(width, 1))

    x = rows()
    narrow = infinite(make(8), parametrization="standard")(x)
    wide = infinite(make(32), parametrization="standard", width_multiplier=4.0)(x)
    close(wide.ntk, narrow.ntk)
    assert (infinite(make(32), parametrization="standard")(x).ntk.diagonal() > narrow.ntk.diagonal()).all()
    close(infinite(make(32), width_multiplier=4.0)(x).ntk, infinite(make(8))(x).ntk)  # nothing else depends on widths


def test_two_calls_are_the_same_and_draw_nothing():
    net, x = cnn(*GAP), images()
    state, weights = torch.get_rng_state(), [p.clone() for p in net.parameters()]
    first, second = infinite(net)(x), infinite(net)(x)
    assert torch.equal(first.nngp, second.nngp) and torch.equal(first.ntk, second.ntk)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), weights, strict=True)) and net.training
    for parameter in net.parameters():
        nn.init.constant_(parameter, 7.0)  # the values of weights are never used
    assert torch.equal(infinite(net)(x).ntk, first.ntk)


def test_one_kernel_alone_is_not_more_than_that():
    x = rows()
    kernel = infinite(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)))
    both, nngp, ntk = kernel(x), kernel(x, get="nngp"), kernel(x, get=("ntk",))
    assert torch.equal(nngp.nngp, both.nngp) and torch.equal(ntk.ntk, both.ntk)
    with pytest.raises(AttributeError, match="ntk was not asked for"):
        _ = nngp.ntk
    with pytest.raises(AttributeError, match="nngp was not asked for"):
        _ = ntk.nngp
    with pytest.raises(InputError, match="get must name"):
        kernel(x, get=())


@pytest.mark.parametrize("tail", [GAP, FLAT])
def test_single_precision_is_the_same_to_its_digits(tail):
    x = images()
    single, double = infinite(cnn(*tail), dtype=torch.float32)(x.float()), infinite(cnn(*tail))(x.float())
    assert single.ntk.dtype == torch.float32
    close(single.ntk.double(), double.ntk, 1e-5)


def test_another_dtype_goes_without_compiled_steps():
    x = rows()
    for act in (nn.ReLU(), nn.LeakyReLU(0.3)):
        net = nn.Sequential(nn.Linear(6, 8), act, nn.Linear(8, 1))
        half = infinite(net, dtype=torch.bfloat16)(x).ntk
        assert half.dtype == torch.bfloat16
        close(half.double(), infinite(net)(x).ntk, 0.03)  # three digits


@pytest.mark.parametrize("make", [lambda: cnn(*GAP), lambda: cnn(*FLAT)])
def test_a_single_example_is_the_corner_of_many(make):
    x = images()
    close(infinite(make())(x[:1]).ntk, infinite(make())(x).ntk[:1, :1])


def test_black_images_have_no_kernel_and_no_nan():
    x = torch.zeros(2, 2, 6, 6)
    x[1, :, 2:4] = 1.0
    for tail in (GAP, FLAT):
        found = infinite(cnn(*tail), sigma_b2=0.0)(x)
        assert torch.isfinite(found.ntk).all() and found.ntk[0].abs().max() == 0 and found.ntk[1, 1] > 0
    net = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8, eps=0.0), nn.ReLU(), nn.Linear(8, 1))
    assert torch.isfinite(infinite(net, sigma_b2=0.0)(torch.zeros(2, 6)).ntk).all()


def test_layer_norm_makes_every_variance_one():
    x = 3 * rows()
    found = infinite(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8, eps=1e-9)))(x)
    close(found.nngp.diagonal(), torch.ones(5, dtype=torch.float64), 1e-8)
    plain = infinite(nn.Linear(6, 8))(x)
    scale = plain.nngp.diagonal().rsqrt()
    close(found.ntk, plain.ntk * scale[:, None] * scale, 1e-8)
    over_space = cnn(nn.Flatten(), nn.Linear(288, 1))
    over_space.insert(1, nn.GroupNorm(1, 8))
    same = cnn(nn.Flatten(), nn.Linear(288, 1))
    same.insert(1, nn.LayerNorm((8, 6, 6)))
    assert torch.equal(infinite(over_space)(images()).ntk, infinite(same)(images()).ntk)


def test_layer_norm_on_average():
    x, width = rows(3), 256

    def make(linear=ntk_linear):
        norm = nn.LayerNorm(width, elementwise_affine=False)
        return nn.Sequential(linear(6, width), norm, nn.ReLU(), linear(width, width), nn.Tanh(), linear(width, 8))

    nngp, ntk = averaged(make, x, 30)
    agrees(infinite(make(nn.Linear))(x).nngp, nngp)
    agrees(infinite(make(nn.Linear))(x).ntk, ntk)


class Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


def test_a_residual_branch_adds_its_kernels():
    x = rows()
    first = infinite(nn.Linear(6, 8))(x)
    body = infinite(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8)))(x)
    found = infinite(nn.Sequential(nn.Linear(6, 8), Residual(nn.Sequential(nn.ReLU(), nn.Linear(8, 8)))))(x)
    close(found.nngp, first.nngp + body.nngp)
    close(found.ntk, first.ntk + body.ntk)
    from_inputs = infinite(Residual(nn.Linear(6, 6)))(x)
    close(from_inputs.nngp, x @ x.T / 6 + first.nngp)
    close(from_inputs.ntk, first.ntk)


def test_features_side_by_side_are_the_weighted_mean():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.out = nn.Linear(6, 8), nn.Linear(6, 24), nn.Linear(32, 1)

        def forward(self, x):
            return self.out(torch.cat([torch.relu(self.one(x)), torch.tanh(self.two(x))], dim=1))

    x = rows()
    parts = [infinite(nn.Sequential(nn.Linear(6, 8), act, nn.Linear(8, 1)))(x) for act in (nn.ReLU(), nn.Tanh())]
    close(infinite(Both())(x).ntk, 0.25 * parts[0].ntk + 0.75 * parts[1].ntk)


def test_dropout_acts_in_training_mode_only():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.25), nn.Linear(8, 1))
    plain = nn.Sequential(*[layer for layer in net if not isinstance(layer, nn.Dropout)])
    x = rows()
    wanted, off, on = infinite(plain)(x).nngp, infinite(net.eval())(x).nngp, infinite(net.train())(x).nngp
    assert torch.equal(off, wanted)
    other = ~torch.eye(5, dtype=torch.bool)
    close(on[other], wanted[other])
    close(on.diagonal() - B2, (wanted.diagonal() - B2) / 0.75)
    assert torch.equal(infinite(net, examples_at_once=2)(x).nngp, on)


def test_an_embedding_is_a_linear_map_of_one_hot_codes():
    tokens = torch.tensor([[0, 1, 2, 1], [1, 1, 0, 2], [3, 0, 0, 0]])
    codes = functional.one_hot(tokens, 5).double()

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(1)

    for tail in ([nn.ReLU(), Mean(), nn.Linear(8, 1)], [nn.Flatten(), nn.Linear(32, 1)]):
        embedded = infinite(nn.Sequential(nn.Embedding(5, 8), *tail))(tokens)
        # the fan-in of a code is 5, of which one is on; without a bias
        linear = infinite(nn.Sequential(nn.Linear(5, 8, bias=False), *tail))(math.sqrt(5) * codes)
        close(embedded.nngp, linear.nngp)
        close(embedded.ntk, linear.ntk)
    net = nn.Sequential(nn.Embedding(5, 8, padding_idx=0), Mean())
    close(kernels.infinite(net)(tokens, tokens[:2]).nngp, kernels.infinite(net)(tokens).nngp[:, :2])
    assert kernels.infinite(net)(tokens).nngp[2, 2].item() == pytest.approx(1 / 16)  # one of four tokens is not padding
    same = infinite(nn.Sequential(nn.Embedding(5, 8), Mean()), parametrization="standard", sigma_w2=9.0)(tokens)
    close(same.nngp, 9.0 * same.ntk)


@pytest.mark.parametrize("scores", ["linear", "relu"])
def test_attention_on_average(scores):
    """Many heads of many features: both are 24 here, and what is left is of order 1 / 24."""
    x, width = rows(2, 12).view(2, 4, 3), 24 * 24

    def make():
        first = models.NTKLinear(3, width, sigma_w2=1.0)
        attention = models.LinearAttention(width, heads=24, scores=scores, parametrization="ntk")
        for part in attention.children():
            part.sigma_w2 = 1.0
        attention.out.sigma_b2 = B2
        return nn.Sequential(first, attention, nn.Flatten(), models.NTKLinear(4 * width, 4, sigma_w2=1.0))

    nngp, ntk = averaged(make, x, 24)
    found = kernels.infinite(make())(x)
    agrees(found.nngp, nngp, bias=0.1)
    agrees(found.ntk, ntk, bias=0.1)


def test_attention_treats_tokens_alike_and_blocks_do_not_matter():
    x = rows(5, 12).view(5, 4, 3)
    for scores in ("linear", "relu"):
        net = nn.Sequential(nn.Linear(3, 8), models.LinearAttention(8, heads=2, scores=scores), nn.Flatten())
        pooled = nn.Sequential(*net[:2], models_mean(), nn.Linear(8, 1))
        close(infinite(pooled)(x[:, [2, 0, 3, 1]]).ntk, infinite(pooled)(x).ntk)
        close(infinite(net, examples_at_once=2)(x).ntk, infinite(net)(x, x).ntk)


def models_mean():
    class Mean(nn.Module):
        def forward(self, x):
            return x.transpose(1, 2).mean(-1)

    return Mean()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_graphics_processor_gives_the_same():
    for tail in (GAP, FLAT):
        x = images()
        close(infinite(cnn(*tail))(x.cuda()).ntk.cpu(), infinite(cnn(*tail))(x).ntk, 1e-10)


def test_bad_input_is_refused():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    for wrong in ({"sigma_w2": -1.0}, {"sigma_b2": math.nan}, {"parametrization": "mup"}, {"width_multiplier": 0.0},
                  {"dtype": torch.int64}, {"examples_at_once": 0}):  # fmt: skip
        with pytest.raises(InputError, match=next(iter(wrong))):
            kernels.infinite(net, **wrong)
    kernel = kernels.infinite(net)
    with pytest.raises(InputError, match="at least one example"):
        kernel(torch.zeros(0, 6))
    with pytest.raises(InputError, match="not finite"):
        kernel(torch.full((2, 6), math.nan))
    with pytest.raises(InputError, match="alike"):
        kernel(torch.zeros(2, 6), torch.zeros(2, 7))


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_a_convolution_in_the_ntk_parametrization_has_its_own_variances(mode):
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own = models.NTKConv2d(2, 4, sigma_w2=1.7, sigma_b2=0.3, padding_mode=mode)
    plain = nn.Conv2d(2, 4, 3, padding=1, padding_mode=mode)
    tail = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), models.NTKLinear(4, 1, sigma_w2=1.7, sigma_b2=0.3))
    found = kernels.infinite(nn.Sequential(own, *tail))(x)
    expected = kernels.infinite(nn.Sequential(plain, *tail), sigma_w2=1.7, sigma_b2=0.3)(x)
    assert torch.equal(found.ntk, expected.ntk) and torch.equal(found.nngp, expected.nngp)


@pytest.mark.parametrize(
    ("network", "x"),
    [
        (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)), rows(d=5)),
        (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(9, 1)), rows(d=6)),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(128, 1)), images(channels=2)),
        (nn.Sequential(nn.Conv2d(2, 8, 3), nn.Flatten(), nn.Linear(99, 1)), images(channels=2)),
    ],
)
def test_inputs_that_do_not_fit_the_layers_are_refused_by_the_layer(network, x):
    with pytest.raises(InputError, match=r"'(0|2)': takes (4|9|3|99) \w+ and is given"):
        kernels.infinite(network)(x)
