import math

import numpy as np
import pytest
import torch
import xarray as xr

from phenoscope import kernels
from phenoscope.lab.map import Lab
from phenoscope.studies.theory import tensor_programs_gradients as module

study = module.study
WIDTHS = [64, 256, 1024, 2048]


def result(**changes):
    limit, off = np.array([[3.0, 0.0], [0.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 0.0]])
    single = 5 * 2.0 * np.array(WIDTHS) ** -0.5
    ntk = limit + single[:, None, None, None] * np.resize([1.0, -1.0], 32)[:, None, None] * off + 0.1 * off
    square = np.ones((2, 3, 2, 4))
    square[1, 0] = [[0.9, 1.0, 1.1, 1.0], [1.3, 1.4, 1.2, 1.3]]
    found = xr.Dataset(
        {
            "square": (("layer_width", "activation", "readout", "seed"), square),
            "predicted": (("activation", "readout"), [[2.0, 2.6], [1.0, 1.0], [1.0, 2.0]]),
            "ntk": (("ntk_width", "net", "sequence", "other"), ntk),
            "ntk_limit": (("sequence", "other"), limit),
            "different_ntk": (("ntk_width", "net", "pair", "sequence", "other"), np.stack([ntk, ntk], 2)),
            "different_limit": (("pair", "sequence", "other"), np.stack([limit] * 2)),
            "untied_limit": (("pair", "sequence", "other"), np.stack([limit + off, limit - off])),
        },
        {
            "layer_width": [256, 2048], "activation": ["relu", "erf", "square"], "readout": ["random", "mean"],
            "seed": range(4), "ntk_width": WIDTHS,
        },
    )  # fmt: skip
    return found.assign(changes)


def observe(claim, data):
    return study.observables[claim](data)


def test_gradients_are_divided_by_the_prediction_draw_by_draw():
    np.testing.assert_allclose(observe("gia-holds-random-readout", result()), [0.45, 0.5, 0.55, 0.5])
    np.testing.assert_allclose(observe("gia-fails-mean-readout", result()), [0.65, 0.7, 0.6, 0.65])
    assert observe("gia-fails-mean-readout", result()).dims == ("seed",)
    assert float(observe("gia-fails-mean-readout-corrected", result())) == pytest.approx(0.5)


def test_kernels_are_compared_one_by_one_or_averaged():
    assert float(observe("rnn-ntk-rate-slope", result())) == pytest.approx(-0.5, abs=0.01)
    assert float(observe("rnn-ntk-rate-error", result())) == pytest.approx(0.1 / 5)
    assert float(observe("tied-differs-from-untied-size", result())) == pytest.approx(0.2)
    untied = math.sqrt((0.9**2 + 1.1**2) / (16 + 16 + 16 + 4))
    assert float(observe("tied-differs-from-untied-fit", result())) == pytest.approx(0.1 / 5 / untied)


def test_what_was_not_run_does_not_apply():
    small = result().sel(layer_width=[256], ntk_width=[64, 256])
    few = result().isel(net=slice(16))
    always = {"tied-differs-from-untied-size"}  # of two theories
    for claim in set(study.observables) - always:
        assert "not_applicable" in observe(claim, small).attrs, claim
    for claim in ("rnn-ntk-rate-slope", "rnn-ntk-rate-error", "tied-differs-from-untied-fit"):
        assert "networks were not drawn" in observe(claim, few).attrs["not_applicable"]


def test_one_layer_has_the_predicted_gradients_for_every_activation():
    found = module.one_layer(Lab(0), width=512, draws=8)
    ratio = (found.square / found.predicted).mean("seed")
    # a draw spreads by 10 to 25 percent at this width, the square the most, the mean of 8 by a third of that
    np.testing.assert_allclose(ratio.sel(activation=["relu", "erf"]), 1, atol=0.12)
    np.testing.assert_allclose(ratio.sel(activation="square"), 1, atol=0.35)
    expected = found.predicted.sel(readout="mean") / found.predicted.sel(readout="random")
    np.testing.assert_allclose(expected, [1 + 1 / math.pi, 1, 2], rtol=1e-6)


def test_zeros_in_front_of_a_sequence_change_neither_output_nor_kernel():
    pair = module.sequences(Lab(0), 1)[1]
    network = module.erf_rnn((6, module.FEATURES), 1, width=24, generator=0)
    padded = module.front_padded(pair)
    assert padded.shape == (2, 6, 16) and not padded[0, 0].any()
    torch.testing.assert_close(network(padded)[:1], network(pair[0][None]))
    kernel = kernels.empirical_ntk(network, padded, outputs=0)
    torch.testing.assert_close(kernel[:1, :1], kernels.empirical_ntk(network, pair[0][None], outputs=0))


def test_tangent_kernels_of_wide_networks_are_near_the_limit():
    found = module.tangent_kernels(Lab(0), width=256, nets=12, pairs=2).merge(module.infinite(Lab(0), pairs=2))
    mean = found.mean("net")
    # one net's kernel is off by some 13 percent at this width, the mean of 12 by 4
    assert float(module.bench.relative_error(mean.ntk, found.ntk_limit)) < 0.1
    assert float(module.bench.relative_error(mean.different_ntk, found.different_limit)) < 0.1
    np.testing.assert_allclose(found.untied_limit[:, 0, 1], 0, atol=1e-12)  # steps of two lengths share nothing
    assert float(np.abs(found.different_limit[:, 0, 1]).max()) > 0


def test_every_layer_and_every_use_of_shared_weights_is_followed():
    settings = dict(readout="mean", width=32, inits=3)
    deep = module.borrowed(Lab(0), name="mlp", make=module.mlp, dataset=study.values("smoke")["dataset"], **settings)
    assert deep.layer.values.tolist() == ["linear2", "linear3", "linear4", "linear5"]
    loop = module.borrowed(Lab(0), name="rnn", make=module.tanh_rnn, dataset=None, **settings)
    assert loop.layer.values.tolist() == [f"again[{use}]" for use in range(4)]
