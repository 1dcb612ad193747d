from functools import partial

import numpy as np
import pytest
import xarray as xr
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from phenoscope import data
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import tinted as bench
from phenoscope.studies.representation import simclr as module

study = module.study


def result():
    arms = list(module.ARMS)
    values = np.array([[0.7, 0.2, 0.6, 0.5, 0.4], [0.7, 0.65, 0.6, 0.5, 0.4], [0.8, 0.2, 0.5, 0.5, 0.4]])
    reduced = np.zeros((3, 5, 2))
    reduced[:, 0] = [0.6, 0.5]
    return xr.Dataset(
        {
            "accuracy": (("seed", "arm"), values),
            "pixel_accuracy": (("seed", "arm"), np.full((3, 5), 0.3)),
            "reduced_accuracy": (("seed", "arm", "layer"), reduced),
            "large_accuracy": (("large_seed", "large_batch"), [[0.6, 0.7], [0.5, 0.7]]),
            "by_batch": (("batch", "sweep_seed"), [[0.8], [0.6]]),
            "by_temperature": (("temperature", "sweep_seed"), [[0.8], [0.6]]),
        },
        {
            "seed": range(3), "arm": arms, "layer": ["features", "projection"], "large_batch": [128, 1024],
            "batch": [32, 256], "temperature": [0.1, 1.0],
        },
    )  # fmt: skip


def few(generator):
    split = data.tinted_digits(generator=generator)
    train, test = ((x[:150], y[:150]) for x, y in (split.train, split.test))
    return data.Split(train, None, test, split.range, split.classes, "few")


@pytest.mark.parametrize(
    ("claim", "values"),
    [
        ("composition", [0.1, 0.05, 0.3]),  # the better of the two is chosen within the seed
        ("learns", [0.3, 0.3, 0.4]),
        ("head-is-discarded-for-a-reason", [0.1, 0.1, 0.1]),
        ("bigger-batch-helps-short-training", [0.1, 0.2]),
    ],
)
def test_the_observables_are_paired_differences(claim, values):
    found = study.observables[claim](result())
    assert found.ndim == 1
    np.testing.assert_allclose(found, values)
    without = result().sel(arm=["noise"]).drop_vars("large_accuracy")
    assert "was not run" in study.observables[claim](without).attrs["not_applicable"]


def test_the_reduced_probe_is_scikit_learns_pipeline():
    split = few(0)
    found = module.reduced_probe(nn.Flatten(), split)
    pipeline = make_pipeline(PCA(64, svd_solver="full"), StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    (x, y), (new, truth) = ((x.flatten(1).double().numpy(), y.numpy()) for x, y in (split.train, split.test))
    assert found == pytest.approx(pipeline.fit(x, y).score(new, truth), abs=0.014)  # two images


def test_one_cell_gives_all_that_the_result_needs_and_the_comparison_at_scale_runs():
    lab, small = Lab(0), partial(bench.encoder, width=2)
    common = dict(model=small, dataset=few, seed=0)
    found = module.one_arm(lab, arm="spatial and color", steps=2, **common)
    assert all(0 <= float(found[name]) <= 1 for name in ("accuracy", "projection_accuracy", "pixel_accuracy"))
    assert np.isfinite(found.reduced_accuracy).all()
    bare = module.one_arm(lab, arm="untrained", steps=2, **common)
    assert np.isnan(bare.projection_accuracy) and np.isnan(bare.reduced_accuracy).all()
    assert 0 <= float(module.one_large(lab, batch=100, epochs=1, **common).accuracy) <= 1
    assert 0 <= float(module.one_point(lab, batch=32, temperature=0.1, steps=1, **common).accuracy) <= 1


def test_the_figure_has_a_panel_for_each_sweep():
    drawing = study.draw(result())
    assert len(drawing.data) == 1 + 5 + 2
    assert drawing.data[-2].x == ("32", "128", "256") and drawing.data[-1].x == ("0.1", "0.5", "1.0")
