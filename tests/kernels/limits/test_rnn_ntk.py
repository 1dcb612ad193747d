import functools

import pytest
import torch

from phenoscope import kernels

SCALES = dict(sigma_w2=1.4, sigma_u2=0.8, sigma_b2=0.2, sigma_v2=1.3)


def tokens(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("act", ["relu", "erf", "tanh"])
def test_one_token_is_a_feed_forward_network(act):
    x = tokens(5, 1, 6)
    found = kernels.rnn_ntk(x, act=act, sigma_w2=9.0, sigma_u2=1.3, sigma_b2=0.2, sigma_v2=1.3)
    expected = kernels.mlp_kernels(x, depth=1, act=act, sigma_w2=1.3, sigma_b2=0.2, last_bias=False)
    torch.testing.assert_close(found.ntk, expected.ntk, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.nngp, expected.nngp, rtol=1e-9, atol=1e-12)


def test_linear_networks_by_hand():
    one, two = tokens(1, 4), tokens(2, 4, seed=1)
    found = kernels.rnn_ntk([one, two], act="linear")
    g = torch.cat([one, two]) @ torch.cat([one, two]).T / 4
    # v (W U y1 + U y2): W gives |y1|^2, U and v give |y1|^2 + |y2|^2 each
    assert found.ntk[1, 1].item() == pytest.approx(float(3 * g[1, 1] + 2 * g[2, 2]))
    assert found.ntk[0, 1].item() == pytest.approx(float(2 * g[0, 2]))  # v U x: the last tokens meet
    untied = kernels.rnn_ntk([one, two], act="linear", tied=False)
    assert untied.ntk[0, 1].item() == 0
    torch.testing.assert_close(untied.ntk.diagonal(), found.ntk.diagonal())


def outputs(parameters, x, act):
    w, u, b, v = parameters
    width, features = u.shape
    state = None
    for token in x.float():
        into = (0.8 / features) ** 0.5 * u @ token + 0.2**0.5 * b
        state = act(into if state is None else (1.4 / width) ** 0.5 * w @ state + into)
    return (1.3 / width) ** 0.5 * v @ state


@pytest.mark.parametrize("name", ["erf", "relu"])
def test_gradients_of_wide_networks_have_this_kernel_and_not_the_untied_one(name):
    pair = [tokens(3, 6), tokens(5, 6, seed=1)]
    pair[1][2:] = pair[0]  # the same end
    width, nets, act = 512, 40, getattr(torch, name)
    found = []
    for seed in range(nets):
        draw = torch.Generator().manual_seed(seed)
        parameters = [torch.randn(*s, generator=draw) for s in ((width, width), (width, 6), (width,), (width,))]
        jacobian = torch.func.jacrev(lambda p: torch.stack([outputs(p, x, act) for x in pair]))(parameters)
        rows = torch.cat([part.flatten(1) for part in jacobian], 1)
        found.append(rows @ rows.T)
    mean = torch.stack(found).mean(0).double()
    tied, untied = (kernels.rnn_ntk(pair, act=name, tied=tied, **SCALES).ntk for tied in (True, False))
    # one net's kernel spreads by some 15 percent at this width, the mean of 40 by 2.5
    assert float((mean - tied).norm() / tied.norm()) < 0.05
    assert float((mean - untied).norm() / untied.norm()) > 0.2


def test_of_sequences_of_one_length_sharing_over_time_changes_nothing():
    x = tokens(4, 3, 5)
    found = [kernels.rnn_ntk(x, act="tanh", tied=tied, **SCALES) for tied in (True, False)]
    torch.testing.assert_close(found[0].ntk, found[1].ntk, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[0].nngp, found[1].nngp, rtol=1e-12, atol=1e-12)


def test_kernels_are_symmetric_and_positive_and_hold_the_readouts_of_the_whole_kernel():
    parts = [tokens(length, 3, seed=length) for length in (1, 4, 2, 6)]
    kernel = functools.partial(kernels.rnn_ntk, act="relu", **SCALES)
    found = kernel(parts)
    torch.testing.assert_close(found.ntk, found.ntk.T)
    assert float(torch.linalg.eigvalsh(found.ntk)[0]) > 0
    last = torch.tensor([0, 4, 6, 12])
    whole = kernels.rnn_nngp(parts, act="relu", **SCALES)
    torch.testing.assert_close(found.nngp, whole[last[:, None], last])
    torch.testing.assert_close(kernel(parts[1:3]).ntk, found.ntk[1:3, 1:3], rtol=1e-12, atol=0)
