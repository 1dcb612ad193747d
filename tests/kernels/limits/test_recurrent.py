import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from phenoscope import kernels
from phenoscope.core.errors import InputError


def sequences(*lengths, d=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    parts = [torch.randn(length, d, dtype=torch.float64, generator=draw) for length in lengths]
    if len(parts) > 1:
        parts[1][:2] = parts[0][1:3]  # tokens in common, at different places
    return parts


SCALES = dict(sigma_w2=1.4, sigma_u2=0.8, sigma_b2=0.2)


@pytest.mark.parametrize("act", ["relu", "erf", "tanh"])
def test_one_token_is_a_feed_forward_network(act):
    (x,) = sequences(5)
    found = kernels.rnn_nngp(x[:, None], act=act, sigma_w2=3.0, sigma_u2=1.3, sigma_b2=0.2, sigma_v2=1.3)
    expected = kernels.mlp_kernels(x, depth=1, act=act, sigma_w2=1.3, sigma_b2=0.2, last_bias=False).nngp
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_linear_network_sums_powers_of_its_matrix():
    a, b = sequences(4, 3)
    found = kernels.rnn_nngp([a, b], act="linear", **SCALES)
    gram = 0.8 * a @ b.T / 6 + 0.2
    for t in range(4):
        for s in range(3):  # E of (sum W^k u_{t-k}) . (sum W^k u_{s-k}) / n
            expected = sum(1.4**k * gram[t - k, s - k] for k in range(min(t, s) + 1))
            assert found[t, 4 + s].item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("act", ["erf", "tanh"])
def test_the_program_written_out_gives_the_same(act):
    a, b = sequences(4, 3)

    def program(lines):
        x = torch.cat([a, b])
        into = lines.inputs(0.8 * x @ x.T / 6)
        (bias,) = lines.inputs(torch.full((1, 1), 0.2))
        states = []
        for rows in (range(4), range(4, 7)):
            for row in rows:
                before = [lines.matmul("W", states[-1], sigma_w2=1.4)] if row > rows.start else []
                at = lines.combine([into[row], bias, *before], [1.0] * (2 + len(before)))
                states.append(lines.apply(lambda x: getattr(torch, act)(x), at))
        return states

    expected = kernels.rnn_nngp([a, b], act=act, **SCALES)
    torch.testing.assert_close(kernels.netsor(program), expected, rtol=0, atol=1e-4)  # two-dimensional Sobol means


def test_torchs_own_recurrent_networks_have_this_kernel_and_not_the_untied_one():
    pair, width, nets = sequences(5, 4), 512, 60
    moments = []
    for seed in range(nets):
        draw = torch.Generator().manual_seed(seed)
        network = nn.RNN(6, width, nonlinearity="relu", batch_first=True)
        scales = {"weight_hh_l0": 1.4 / width, "weight_ih_l0": 0.8 / 6, "bias_ih_l0": 0.2, "bias_hh_l0": 0.0}
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.normal_(0, scales[name] ** 0.5, generator=draw)
            states = torch.cat([network(x.float())[0] for x in pair])
        moments.append(states @ states.T / width)
    found = torch.stack(moments).mean(0).double()
    tied, untied = (kernels.rnn_nngp(pair, act="relu", tied=tied, **SCALES) for tied in (True, False))
    # one net's moments spread by some 15 percent at this width, the mean of 60 by 2
    assert float((found - tied).norm() / tied.norm()) < 0.04
    assert float((found - untied).norm() / untied.norm()) > 0.2


def test_untied_steps_have_nothing_in_common_and_the_same_variances():
    a, b = sequences(5, 3)
    tied, untied = (kernels.rnn_nngp([a, b], tied=tied, **SCALES) for tied in (True, False))
    step = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    same = step[:, None] == step
    torch.testing.assert_close(tied[same], untied[same])
    assert not untied[~same].any() and float(tied[~same].abs().max()) > 0.05


@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    act=st.sampled_from(["relu", "erf", "abs"]),
    tied=st.booleans(),
)
def test_what_comes_later_changes_nothing_and_kernels_are_covariances(lengths, act, tied):
    draw = torch.Generator().manual_seed(sum(lengths))
    parts = [torch.randn(length, 3, generator=draw) for length in lengths]
    whole = kernels.rnn_nngp(parts, act=act, tied=tied, **SCALES)
    assert whole.dtype == torch.float64 and whole.shape == (sum(lengths),) * 2
    torch.testing.assert_close(whole, whole.T, rtol=0, atol=0)
    assert float(torch.linalg.eigvalsh(whole)[0]) > -1e-9
    shorter = [part[:2] for part in parts]
    kept = torch.cat([torch.arange(length) < 2 for length in lengths])
    part = kernels.rnn_nngp(shorter, act=act, tied=tied, **SCALES)
    torch.testing.assert_close(whole[kept][:, kept], part, rtol=1e-12, atol=1e-12)


def test_shapes_of_tokens():
    x = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(kernels.rnn_nngp(x), kernels.rnn_nngp(list(x)), rtol=0, atol=0)
    torch.testing.assert_close(kernels.rnn_nngp(x[0]), kernels.rnn_nngp(x)[:4, :4], rtol=0, atol=0)
    for bad, message in (
        ([], "sequences of tokens"),
        (torch.ones(3), "sequences of tokens"),
        ([torch.ones(2, 3), torch.ones(2, 4)], "same number of features"),
        ([torch.ones(2, 3), torch.ones(0, 3)], "sequences of tokens"),
        (torch.tensor([[float("nan")]]), "not finite"),
    ):
        with pytest.raises(InputError, match=message):
            kernels.rnn_nngp(bad)
    with pytest.raises(InputError, match="variances must not be negative"):
        kernels.rnn_nngp(x, sigma_b2=-1.0)
