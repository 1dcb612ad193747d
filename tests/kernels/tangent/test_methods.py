"""All ways to the tangent kernel, whatever the network and the blocks, against derivatives taken one at a time."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from phenoscope import kernels, models
from phenoscope.core.errors import InputError
from phenoscope.kernels.tangent import plan as plans
from phenoscope.kernels.tangent.plan import plan

CLOSE = {"rtol": 1e-10, "atol": 1e-10}  # float64, relative to kernels of order one: other orders of the same sums


def explicit(model, x1, x2):
    parameters = [p for p in model.parameters() if p.requires_grad]

    def rows(x):
        return torch.stack([torch.stack([gradient(o, parameters) for o in model(one[None])[0]]) for one in x])

    return torch.einsum("iap,jbp->ijab", rows(x1), rows(x2))


def gradient(output, parameters):
    found = torch.autograd.grad(output, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def agrees(model, x1, x2=None, *, methods=("auto", "layers", "jacobian"), memories=(None,)):
    whole = explicit(model, x1, x1 if x2 is None else x2)
    scale = whole.abs().max().clamp(min=1e-9)
    for outputs in ("full", "trace", 0):
        wanted = {"full": whole, "trace": whole.diagonal(dim1=2, dim2=3).mean(-1), 0: whole[..., 0, 0]}[outputs]
        for method in methods:
            for memory in memories:
                found = kernels.empirical_ntk(model, x1, x2, outputs=outputs, method=method, memory=memory)
                assert found.shape == wanted.shape
                torch.testing.assert_close(found / scale, wanted / scale, **CLOSE)


def drawn(model, seed=0):
    """Every parameter and running statistic away from its first value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + (0.5 if name.endswith("var") else 0))
    return model.double().eval()


class Mixed(nn.Module):
    """Tokens, convolutions in groups, norms, shortcuts, a layer used twice, a bare parameter."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4, padding_idx=0)
        self.conv1 = nn.Conv1d(4, 6, 3, padding="same", padding_mode="circular", groups=2)
        self.bn = nn.BatchNorm1d(6)
        self.conv2 = nn.Conv1d(6, 6, 3, dilation=2, padding=2, bias=False)
        self.down = nn.Conv1d(6, 6, 2, stride=2, groups=6)
        self.ln, self.gn, self.rms = nn.LayerNorm(6), nn.GroupNorm(2, 6), nn.RMSNorm(6)
        self.twice, self.scale, self.head = nn.Linear(6, 6), nn.Parameter(torch.ones(6)), nn.Linear(6, 2)

    def forward(self, tokens):
        h = torch.relu(self.bn(self.conv1(self.embedding(tokens).transpose(1, 2))))
        h = self.down(h + self.conv2(h)).transpose(1, 2)
        h = h + torch.tanh(self.twice(self.ln(h)))
        h = self.rms(h + self.twice(h) * self.scale)
        return self.head(self.gn(h.transpose(1, 2)).mean(2))


def tokens(n, seed=0):
    return torch.randint(0, 7, (n, 6), generator=torch.Generator().manual_seed(seed))


def test_a_network_of_everything_at_once():
    model = drawn(Mixed())
    made = plan(model, tokens(2), 2)
    assert list(made.rest) == ["scale"] and len(made.parts) == 10 and not made.reasons
    agrees(model, tokens(3), methods=("auto", "jacobian", "products"))
    agrees(model, tokens(3), tokens(2, seed=1), methods=("layers", "products"))
    agrees(model, tokens(3), methods=("layers",), memories=(2000,))


@pytest.mark.parametrize("cheap", ["by_gradients", "by_positions"])
def test_either_order_of_multiplication_gives_the_same(cheap, monkeypatch):
    monkeypatch.setattr(plans.Part, cheap, lambda *_: 0.0)
    monkeypatch.setattr(plans.Part, "keeps_gradients", lambda part, *_: not hasattr(part.rule, "width"))
    for memory in (None, 4000):
        agrees(drawn(Mixed()), tokens(4), methods=("layers",), memories=(memory,))
        agrees(drawn(Mixed()), tokens(3), tokens(2, seed=1), methods=("layers",), memories=(memory,))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    spatial=st.integers(1, 2),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 2),
    bias=st.booleans(),
    mode=st.sampled_from(["zeros", "circular", "reflect", "replicate"]),
    n=st.integers(1, 3),
    memory=st.sampled_from([None, 1000, 20_000]),
)
def test_convolutions_of_every_geometry(spatial, kernel, stride, padding, dilation, groups, bias, mode, n, memory):
    kind = (nn.Conv1d, nn.Conv2d)[spatial - 1]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "bias": bias, "padding_mode": mode}
    net = drawn(nn.Sequential(kind(2, 4, kernel, groups=groups, **options), nn.Tanh(), nn.Flatten(), Sum()))
    x = torch.randn(n, 2, *(6,) * spatial, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    agrees(net, x, methods=("layers",), memories=(memory,))
    assert not plan(net, torch.cat([x[:1], x[:1]]), 2).rest


class Sum(nn.Module):
    def forward(self, x):
        return torch.stack([x.sum(1), (x * x).sum(1)], 1)


def test_layers_in_the_ntk_parametrization():
    net = nn.Sequential(
        models.NTKConv2d(2, 3, 3, padding_mode="circular"),
        nn.ReLU(),
        nn.Flatten(),
        models.NTKLinear(48, 2, sigma_b2=0.3),
    )
    agrees(drawn(net), torch.randn(3, 2, 4, 4, dtype=torch.float64), methods=("layers", "jacobian"))
    assert not plan(net, torch.randn(2, 2, 4, 4, dtype=torch.float64), 2).rest


def test_frozen_parameters_and_unused_layers_do_not_count():
    model = drawn(Mixed())
    for parameter in (model.conv1.weight, model.conv2.weight, model.bn.weight, model.ln.bias, model.twice.weight):
        parameter.requires_grad_(False)
    model.unused = nn.Linear(3, 3).double()
    agrees(model, tokens(3))


def test_weights_that_two_layers_share_take_the_plain_way():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    model[2].weight = model[0].weight
    x = torch.randn(3, 4, dtype=torch.float64)
    assert list(plan(model, x[:2], 2).rest) == ["0.weight", "0.bias", "2.bias"]
    agrees(model, x)


class Direct(nn.Module):
    """Uses a layer's weight without calling the layer, besides calling it."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.tanh(nn.functional.linear(torch.tanh(self.layer(x)), self.layer.weight)))


class SequenceFirst(nn.Module):
    """Examples lie along the second axis of what the layer takes in."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(x.transpose(0, 1))).sum(0))


def test_a_rule_that_would_be_wrong_is_found_out():
    torch.manual_seed(0)
    model, x = Direct().double(), torch.randn(4, 4, dtype=torch.float64)
    made = plan(model, x[:2], 2)
    assert list(made.rest) == ["layer.weight", "layer.bias"] and "other derivatives" in made.reasons[0]
    agrees(model, x)
    for length in (1, 2, 3):  # two is the number of examples in the trial
        model, x = SequenceFirst().double(), torch.randn(3, length, 4, dtype=torch.float64)
        if length > 1:
            assert list(plan(model, x[:2], 2).rest) == ["layer.weight", "layer.bias"]
            agrees(model, x)
            agrees(model, x[:1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


def test_attention_takes_the_plain_way_for_itself_alone():
    model = drawn(Attention())
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    assert all(name.startswith("attention.") for name in plan(model, x[:2], 2).rest)
    agrees(model, x)
    with pytest.raises(InputError, match="no derivatives in forward mode"):
        kernels.empirical_ntk(model, x, method="products")


@pytest.mark.parametrize("layer", [nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(1, 2, 3), nn.InstanceNorm2d(1, affine=True)])
def test_one_example_is_enough(layer):
    net = drawn(nn.Sequential(layer, nn.Tanh(), nn.Flatten(), Sum()))
    agrees(net, torch.randn(1, 1, 4, 4, dtype=torch.float64), methods=("auto", "jacobian", "products"))


def test_a_convolution_that_is_linear_has_the_gram_matrix_of_its_patches():
    """Outputs that sum over positions: Theta^ab = delta_ab times the product of summed patches."""
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    patches = nn.functional.unfold(x, 3).mean(2)
    wanted = (patches @ patches.T)[:, :, None, None] * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(kernels.empirical_ntk(net, x), wanted, rtol=1e-12, atol=1e-12)


def test_vector_products_are_taken_where_they_cost_less():
    """A large table of which an example uses one row: its gradient is far longer than a pass."""
    from phenoscope.kernels.tangent.choose import tangents
    from phenoscope.kernels.tangent.vector_products import Products

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(5000, 3, dtype=torch.float64))

        def forward(self, x):
            return torch.tanh(self.table[x])

    model, x = Table(), torch.tensor([1, 2, 1, 4000])
    common = {"count": 3, "chosen": range(3), "full": True, "memory": 2**28, "chunk": None}
    assert isinstance(tangents(model, x, None, method="auto", **common), Products)
    agrees(model, x, methods=("auto", "jacobian", "products"))


def test_memory_bounds_what_is_made():
    """The largest tensor made on the way stays near the budget; derivatives by all weights would be ten times it."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = [0]

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for each in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(each, torch.Tensor):
                    largest[0] = max(largest[0], each.untyped_storage().nbytes())
            return out

    net = models.cnn((1, 8, 8), 5, width=(16, 16), hidden=(64,), generator=0)
    x = torch.randn(40, 1, 8, 8)
    memory = 2**19
    with Sizes():
        kernels.empirical_ntk(net, x, outputs="trace", memory=memory)
    whole = 4 * 40 * 5 * sum(p.numel() for p in net.parameters())
    assert whole > 10 * memory and largest[0] <= memory


def test_float32_settings_of_a_card_are_left_as_they_were():
    from phenoscope.kernels.tangent.tiles import full_precision

    places = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [place.fp32_precision for place in places]
    with full_precision():
        assert [place.fp32_precision for place in places] == ["ieee", "ieee"]
    assert [place.fp32_precision for place in places] == before
