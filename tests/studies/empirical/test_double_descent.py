import numpy as np
import pytest
import xarray as xr

from phenoscope.studies.empirical import double_descent as module

OBSERVABLES = module.study.observables
WIDTHS = [4, 8, 16, 32, 512]
CURVES = {"noisy labels": [0.9, 0.5, 1.2, 0.8, 0.4], "clean labels": [0.5, 0.4, 0.45, 0.2, 0.1]}
CURVES["fewer samples"] = [0.9, 1.4, 1.0, 0.8, 0.5]


def result(widths=WIDTHS):
    arms = list(CURVES)
    mse = np.array([CURVES[arm] for arm in arms])[:, :, None, None] * np.array(
        [0.5, 1.0]
    )  # over steps; the last counts
    mse = mse + np.array([-0.01, 0.0, 0.01])[:, None]
    error = np.broadcast_to(np.array([0.8, 0.4, 0.1, 0.0, 0.0])[:, None, None], mse.shape).copy()
    error[:, 2] = 0.05
    dims = ("arm", "width", "seed", "step")
    found = xr.Dataset(
        {"test_mse": (dims, mse), "train_error": (dims, error), "test_error": (dims, error)},
        {"arm": arms, "n": ("arm", [300, 300, 100]), "width": WIDTHS, "seed": range(3), "step": [1, 9]},
    )
    return found.sel(width=list(widths))


def test_the_observables_are_read_off_the_planted_curves():
    found = {claim: OBSERVABLES[claim](result()) for claim in OBSERVABLES}
    np.testing.assert_allclose(found["model-wise-peak-above-wide"], 1.2 - 0.4)
    np.testing.assert_allclose(found["model-wise-peak-above-narrow"], 1.2 - 0.5)
    np.testing.assert_allclose(found["noise-raises-the-peak"], (1.2 - 0.4) - (0.45 - 0.1))
    assert float(found["peak-moves-with-n"]) == 16 / 8
    threshold = 8 * 2 ** ((0.4 - 0.1) / (0.4 - 0.05))
    assert float(found["peak-at-interpolation"]) == pytest.approx(np.log2(16 / threshold))
    assert [found[claim].dims for claim in sorted(found)] == [("seed",), ("seed",), ("seed",), (), ()]


def test_too_few_widths_do_not_apply():
    for claim in OBSERVABLES:
        assert "not_applicable" in OBSERVABLES[claim](result(widths=[8, 512])).attrs
    assert "512" in OBSERVABLES["noise-raises-the-peak"](result(widths=[4, 8, 16])).attrs["not_applicable"]


def test_arms_share_points_and_first_weights_and_differ_in_labels_alone():
    from phenoscope.lab.map import Lab
    from phenoscope.studies.benches import width_sweep as bench

    common = dict(model=bench.mlp, dataset=bench.digits, width=16, n=50, steps=40, seeds=2)
    both = module.one_width(Lab(0), noises=(0.2, 0.0), **common)
    clean = module.one_width(Lab(0), noises=(0.0,), **common)
    # another size of the fleet takes sums in another order: 1e-4 after 40 steps
    np.testing.assert_allclose(both.test_loss.sel(noise=0.0), clean.test_loss.sel(noise=0.0), rtol=1e-4)
    assert (both.test_loss.isel(step=-1).sel(noise=0.2) != both.test_loss.isel(step=-1).sel(noise=0.0)).all()
    assert both.step.values[0] == 1 and both.step.values[-1] == 40
