import numpy as np
import xarray as xr

from phenoscope.studies.empirical import layer_criticality as module

study = module.study
LAYERS = ["linear1", "linear2", "linear3", "linear4", "linear5", "logits"]


def planted():
    """Width 256: the first layer costs 0.5, inner ones 0.1, 0.02, 0.04, 0, the last 0.2; narrow twice, wide half."""
    cost = np.array([0.5, 0.1, 0.02, 0.04, 0.0, 0.2])
    scale = {32: 2.0, 256: 1.0, 512: 0.5}
    table = np.stack([np.stack([factor * cost, 0 * cost], -1) for factor in scale.values()])
    table = np.repeat(table[:, None], 3, 1) + np.zeros((1, 3, 1, 1))
    accuracy = 0.9 + np.arange(3) / 100
    replaced = accuracy[None, :, None, None] - table
    drawn = np.repeat(np.full((3, 3, 6, 1), 0.1), 2, -1)
    return xr.Dataset(
        {
            "accuracy": (("width", "seed"), np.tile(accuracy, (3, 1))),
            "criticality": (("width", "seed", "layer", "step"), table),
            "replaced": (("width", "seed", "layer", "step"), replaced),
            "rerandomized": (("width", "seed", "layer", "repeat"), drawn),
        },
        {"width": [32, 256, 512], "seed": range(3), "layer": LAYERS, "step": [0, 1500], "repeat": [0, 1]},
    )


def observe(claim, result):
    return study.observables[claim](result)


def test_observables_of_known_costs():
    result = planted()
    median = np.median([0.1, 0.02, 0.04, 0.0])
    by_seed = observe("heterogeneous-layers-sign", result)
    assert by_seed.dims == ("seed",)
    np.testing.assert_allclose(by_seed, 0.5 - median)
    size = observe("heterogeneous-layers-size", result)
    assert size.dims == ()
    np.testing.assert_allclose(size, 0.5 - median)
    mean = 0.86 / 6
    np.testing.assert_allclose(observe("reinit-milder-than-rerandom", result), np.array([0.8, 0.81, 0.82]) - mean)
    np.testing.assert_allclose(observe("wider-is-more-ambient", result), 1.5 * mean)


def test_widths_that_were_not_run_do_not_apply():
    result = planted()
    for claim in ("heterogeneous-layers-size", "heterogeneous-layers-sign", "reinit-milder-than-rerandom"):
        assert "width 256" in observe(claim, result.sel(width=[32, 512])).attrs["not_applicable"]
    assert "512" in observe("wider-is-more-ambient", result.sel(width=[32, 256])).attrs["not_applicable"]


def test_the_figure_has_a_panel_a_width():
    assert len(study.draw(planted()).data) == 3
