import numpy as np
import pytest
import xarray as xr

from phenoscope.lab.map import Lab
from phenoscope.studies.benches import adversarial_digits as bench
from phenoscope.studies.robustness import trades as module

study = module.study


def result():
    arms = ["standard", "attacked", "trades 0.3", "trades 1", "trades 3", "trades 10"]
    natural, boundary = [0.02, 0.03, 0.03, 0.03, 0.04, 0.06], [0.5, 0.2, 0.3, 0.2, 0.15, 0.1]
    found = xr.Dataset({"natural": ("arm", natural), "boundary": ("arm", boundary)}, {"arm": arms})
    found = found.expand_dims(seed=3).assign_coords(seed=range(3))
    return found.assign(robust_accuracy=1 - found.natural - found.boundary)


@pytest.mark.parametrize(
    ("claim", "value"),
    [("beta-buys-robustness", 0.14), ("beta-costs-accuracy", 0.03), ("boundary-error-shrinks", 0.35)],
)
def test_the_observables_are_paired_differences_of_arms(claim, value):
    found = study.observables[claim](result())
    assert found.dims == ("seed",) and found.seed.values.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found, value)
    without = result().sel(arm=["standard", "trades 0.3"])
    assert "was not run" in study.observables[claim](without).attrs["not_applicable"]


def test_all_arms_of_a_seed_begin_as_one_network_and_the_errors_add_up():
    lab = Lab(0)
    common = dict(model=bench.mlp, dataset=bench.digits, eps=0.1, epochs=1, attack_steps=1, seeds=2)
    found = [module.one_arm(lab, arm=arm, beta=beta, **common) for arm, beta in [("standard", None), ("trades 0", 0.0)]]
    xr.testing.assert_allclose(found[0].natural, found[1].natural, atol=0.005)  # weight 0 is plain training
    for each in found:
        np.testing.assert_allclose(each.natural + each.boundary, each.robust_error)
        assert each.seed.values.tolist() == [0, 1] and not each.masked.any()
    assert bench.splits(lab, bench.digits, 2)[0].range == (0, 1)


def test_the_figure_shows_every_arm():
    drawing = study.draw(result())
    assert [len(trace.x) for trace in drawing.data] == [12, 4, 3, 1, 3, 1]  # seeds, then their means, of each group
