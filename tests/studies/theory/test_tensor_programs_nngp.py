import numpy as np
import pytest
import torch
import xarray as xr

from phenoscope import kernels
from phenoscope.lab.map import Lab
from phenoscope.studies.theory import tensor_programs_nngp as module

study = module.study
WIDTHS = [64, 256, 1024, 2048, 4096]


def result(**changes):
    limit = np.array([[3.0, 0.0], [0.0, 4.0]])  # of norm 5
    single = 5 * 2.0 * np.array(WIDTHS) ** -0.5  # one network's error, in its first entry, of either sign
    signs = np.resize([1.0, -1.0], 64)
    off = np.array([[1.0, 0.0], [0.0, 0.0]])
    rnn = limit + single[:, None, None, None] * signs[:, None, None] * off + 0.05 * off
    axes = ("net", "token", "other")
    found = xr.Dataset(
        {
            "rnn_kernel": (("rnn_width", *axes), rnn),
            "rnn_limit": (axes[1:], limit),
            "untied_limit": (axes[1:], limit + 2.55 * off),
            "gru_kernel": (("gru_width", *axes), np.tile(1.1 * limit, (2, 64, 1, 1))),
            "gru_limit": (axes[1:], limit),
            "attention_kernel": (("attention_width", *axes), np.tile(0.8 * limit, (1, 64, 1, 1))),
            "attention_limit": (axes[1:], limit),
            "kurtosis_excess": ("readout_width", [0.8, 0.2, 0.1, 0.04]),
            "squared_length": ("readout_width", [1.4, 1.2, 1.1, 1.01]),
        },
        {"rnn_width": WIDTHS, "gru_width": [128, 1024], "attention_width": [512], "readout_width": [4, 16, 64, 256]},
    )
    return found.assign(changes)


def observe(claim, data):
    return study.observables[claim](data)


def test_errors_are_relative_of_single_networks_or_of_their_mean():
    assert float(observe("rnn-rate-slope", result())) == pytest.approx(-0.5, abs=0.01)  # 4096 does not count
    assert float(observe("rnn-rate-error", result())) == pytest.approx(2 / 2048**0.5, rel=1e-3)
    untied = np.sqrt(2.5**2 / (5.55**2 + 4**2))
    assert float(observe("sharing-matters", result())) == pytest.approx(0.01 / untied, rel=1e-6)
    assert float(observe("gru-and-attention-gru", result())) == pytest.approx(0.1)
    assert float(observe("gru-and-attention-attention", result())) == pytest.approx(0.2)


def test_the_joint_distribution_is_judged_at_the_registered_widths():
    assert float(observe("joint-gaussian-decreasing", result())) == pytest.approx(-0.06)
    assert float(observe("joint-gaussian-excess", result())) == pytest.approx(0.04)
    assert float(observe("joint-gaussian-scale", result())) == pytest.approx(1.01)


def test_what_was_not_run_does_not_apply():
    small = result().sel(rnn_width=[64, 256], gru_width=[128], readout_width=[4, 16]).drop_sel(attention_width=512)
    few = result().isel(net=slice(16))
    for claim in study.observables:
        assert "not_applicable" in observe(claim, small).attrs, claim
    for claim in ("rnn-rate-slope", "rnn-rate-error", "sharing-matters", "gru-and-attention-gru"):
        assert "networks were not drawn" in observe(claim, few).attrs["not_applicable"]


@pytest.mark.parametrize(("kind", "width", "bound"), [("rnn", 256, 0.06), ("gru", 128, 0.06), ("attention", 256, 0.04)])
def test_networks_drawn_have_the_kernels_computed(kind, width, bound):
    found = module.sampled(Lab(0), kind=kind, width=width, nets=40)
    limits = module.infinite(Lab(0))
    # one net's kernel is off by 2 / sqrt(width) or less, the mean of 40 by a sixth of that
    assert float(module.mean_error(found.merge(limits), kind)) < bound


def test_readouts_become_gaussian_of_the_kernels_scale():
    few, many = (module.sampled(Lab(0), kind="readout", width=width, nets=2000) for width in (4, 128))
    assert float(few.kurtosis_excess) > 0.3 > 0.1 > abs(float(many.kurtosis_excess))
    assert float(many.squared_length) == pytest.approx(1, abs=0.04)  # 2000 draws: a standard error of 0.01


def test_sequences_of_states_are_those_of_one_sequence_alone():
    pair = module.tokens(Lab(0))
    assert [len(x) for x in pair] == list(module.LENGTHS)
    shared = (pair[0][:, None] == pair[1]).all(2)
    assert int(shared.sum()) == module.COMMON
    drawn = {}

    def weights(inputs, width=8):
        key = (inputs, len([k for k in drawn if k[0] == inputs]))
        drawn[key] = torch.randn(3, width, inputs, generator=torch.Generator().manual_seed(len(drawn))) / inputs**0.5
        return drawn[key]

    states = module.rnn(weights, pair, 8)
    w, u = drawn[8, 0], drawn[16, 0]
    for x, at in zip(pair, (0, 5), strict=True):
        s = torch.zeros(3, 8, 1)
        for t, token in enumerate(x):
            s = torch.erf(w @ s + u @ token[:, None])
            torch.testing.assert_close(states[:, at + t], s[..., 0])


def test_other_weights_at_every_step_are_neither_of_the_two_theories():
    found = module.infinite(Lab(0))
    tied, untied = found.rnn_limit.values, found.untied_limit.values
    between = found.untied_recurrence_limit.values
    np.testing.assert_allclose(np.diag(between), np.diag(tied), rtol=1e-9)
    assert np.abs(between - tied).max() > 0.01 and np.abs(between - untied).max() > 0.01
    np.testing.assert_allclose(tied, kernels.rnn_nngp(module.tokens(Lab(0))).numpy())
