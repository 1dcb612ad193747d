import numpy as np
import pytest
import xarray as xr

from phenoscope.studies.empirical import information_plane as module

OBSERVABLES = module.study.observables
STEPS = [0, 1, 10, 100, 950, 1000]


def planted(steps=STEPS):
    """Adam: layers 3, 4 and 5 of 6 lose 1, 2 and 3 bits, others much more; SGD: nothing of it."""
    told = np.full((2, 3, len(steps), 6), 9.0)
    told[0, :, -1] -= [7, 7, 1, 2, 3, 7]
    label = np.zeros((2, 3, len(steps), 6))
    label[0, :, -2, 4] = [0.4, 0.5, 0.6]  # and falls again
    label[0, :, 0, 4] = 0.1
    ratio = np.full((2, 3, len(steps), 6), 10.0)
    ratio[0, :, 0] = 1000.0  # step 0 does not count
    ratio[0, :, [at for at, step in enumerate(steps) if step >= 900]] = 1.0
    ratio[0, 2, -1] = 2.0
    return xr.Dataset(
        {
            "input": (("optimizer", "seed", "step", "layer"), told),
            "label": (("optimizer", "seed", "step", "layer"), label),
            "ratio": (("optimizer", "seed", "step", "weight"), ratio),
        },
        {"optimizer": [module.JUDGED, module.OTHER], "seed": range(3), "step": steps, "layer": range(1, 7)},
    )


def test_claims_read_the_network_of_the_judged_optimizer():
    fitting = OBSERVABLES["fitting-phase"](planted())
    assert fitting.dims == ("seed",)
    np.testing.assert_allclose(fitting, [0.3, 0.4, 0.5])
    np.testing.assert_allclose(OBSERVABLES["upper-layers-compress"](planted()), [2, 2, 2])
    fall = OBSERVABLES["drift-to-diffusion-mean"](planted())
    np.testing.assert_allclose(fall, [1, 1, 1 - np.log10(2) / 2])
    lowest = OBSERVABLES["drift-to-diffusion-every-seed"](planted())
    assert lowest.dims == () and float(lowest) == pytest.approx(float(fall.min()))


def test_a_run_too_short_for_two_phases_says_so():
    for claim in ("drift-to-diffusion-mean", "drift-to-diffusion-every-seed"):
        assert "not_applicable" in OBSERVABLES[claim](planted([0, 1, 5, 9, 40, 60])).attrs


def test_the_phase_changes_where_the_ratio_stays_low():
    ratio = xr.DataArray(
        [[4.0, 1.0, 3.0, 6.0, 2.0, 1.0], [4.0, 3.0, 2.5, 3.0, 2.5, 3.0], [1.0, 2.0, 0.5, 0.5, 0.5, 0.5]],
        dims=("seed", "step"), coords={"step": STEPS},
    )  # fmt: skip
    np.testing.assert_array_equal(module.phase_change(ratio), [950, np.nan, 10])
    np.testing.assert_array_equal(module.phase_change(ratio.transpose()), [950, np.nan, 10])
