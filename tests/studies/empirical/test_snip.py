import numpy as np
import xarray as xr

from phenoscope.studies.empirical import snip as module

study = module.study


def result(**changes):
    arms, densities = list(module.ARMS), [0.1, 0.05, 0.02]
    values = np.zeros((3, 4, 3))
    values[:, 0] = [0.95, 0.9, 0.8]
    values[:, 1] = [0.9, 0.7, 0.5]
    values += np.arange(3)[:, None, None] / 100
    shares = np.full((3, 4, 3), 0.5)
    shares[:, 0, 1] = 0.9
    found = xr.Dataset(
        {
            "dense_accuracy": ("seed", [0.97, 0.98, 0.99]),
            "accuracy": (("seed", "arm", "density"), values),
            "varying_share": (("seed", "arm", "density"), shares),
        },
        {"seed": range(3), "arm": arms, "density": densities},
    )
    return found.assign(changes)


def observe(claim, data):
    found = study.observables[claim](data)
    assert "not_applicable" in found.attrs or (found.dims == ("seed",) and found.seed.values.tolist() == [0, 1, 2])
    return found


def test_the_observables_are_paired_differences_at_their_density():
    np.testing.assert_allclose(observe("beats-random", result()), 0.3)
    np.testing.assert_allclose(observe("finds-relevant-inputs", result()), 0.4)
    np.testing.assert_allclose(observe("small-accuracy-cost-at-5-percent", result()), 0.02)


def test_what_a_run_lacks_does_not_apply():
    assert "density 0.02" in observe("beats-random", result().sel(density=[0.1])).attrs["not_applicable"]
    assert (
        "not run" in observe("small-accuracy-cost-at-5-percent", result().sel(density=[0.05])).attrs["not_applicable"]
    )
    without = result(varying_share=result().varying_share * np.nan)
    assert "first layer" in observe("finds-relevant-inputs", without).attrs["not_applicable"]


def test_every_mask_of_a_seed_keeps_the_same_number_of_weights():
    from phenoscope.lab.map import Lab
    from phenoscope.studies.benches import pruned_digits as bench

    found = module.one_seed(
        Lab(0), model=bench.mlp, dataset=bench.digits, densities=(0.05,), batch=100, steps=2, seed=0
    )
    sizes = np.array([64 * 256, 256**2, 2560])
    kept = (found.layer_density * sizes).sum("layer")
    np.testing.assert_allclose(kept, round(0.05 * 84_480), rtol=1e-6)
    assert float(found.varying_share.sel(arm="random", density=0.05)) < 0.6
