import numpy as np
import torch
import xarray as xr

from phenoscope import data as data_sets
from phenoscope import train
from phenoscope.lab.map import Lab
from phenoscope.studies.empirical import critical_periods as module

OBSERVABLES = module.study.observables
RISE, FALL, TIME = (f"fisher-rises-and-falls-{name}" for name in ("rise", "fall", "time"))
PHOTOS = {"cifar-blur": "blur", "cifar-blur-not-flip": "flip", "cifar-blur-not-labels": "labels"}


def result(late=1500, photos=100):
    kinds = ["blur", "labels", "flip"]
    lost = np.arange(18).reshape(2, 3, 3) / 100
    fisher = np.stack([[[1, 1], [4, 2], [2, 2], [1, 0]], [[1, 1], [2, 4], [0, 0], [1, 0]]]).astype(float)
    found = xr.Dataset(
        {
            "sensitivity": (("seed", "deficit", "end"), lost),
            "window_sensitivity": (("seed", "start"), [[0.05, 0.03, 0.01], [0.02, 0.02, 0.03]]),
            "fisher": (("seed", "step", "layer"), fisher),
        },
        {
            "seed": [0, 1], "deficit": kinds, "end": [0, 300, late], "start": [0, 300, late],
            "step": [0, 50, 100, 200], "layer": ["a", "b"],
        },
    )  # fmt: skip
    if photos:
        deep = ("photo_seed", "photo_deficit"), [[0.06, 0.01, 0.0], [0.04, -0.01, 0.002]]
        found = found.assign(photo_sensitivity=deep).assign_coords(photo_deficit=kinds, photo_epochs=photos)
    return found


def test_the_lasting_loss_is_that_of_blur_until_step_1500():
    found = OBSERVABLES["early-deficit-lasts"](result())
    assert found.dims == ("seed",)
    np.testing.assert_allclose(found, [0.02, 0.11])


def test_early_windows_are_compared_with_late_ones_seed_by_seed():
    np.testing.assert_allclose(OBSERVABLES["early-worse-than-late"](result()), [0.04, -0.01])


def test_fisher_claims_speak_of_the_mean_over_seeds_of_the_whole_trace():
    # whole: (2, 6, 4, 1) and (2, 6, 0, 1)
    assert OBSERVABLES[RISE](result()) == 3
    assert OBSERVABLES[FALL](result()) == 6
    assert OBSERVABLES[TIME](result()) == 0.25
    assert OBSERVABLES[RISE](result()).dims == ()


def test_photographs_are_averaged_over_seeds():
    for (claim, _), expected in zip(PHOTOS.items(), (0.05, 0.001, 0.0), strict=True):
        np.testing.assert_allclose(OBSERVABLES[claim](result()), expected, atol=1e-12)


def test_what_was_not_run_does_not_apply():
    for claim in ("early-deficit-lasts", "early-worse-than-late"):
        assert "not_applicable" in OBSERVABLES[claim](result(late=600)).attrs
    for claim in PHOTOS:
        assert "not_applicable" in OBSERVABLES[claim](result(photos=0)).attrs
        assert "100 epochs" in OBSERVABLES[claim](result(photos=20)).attrs["not_applicable"]


def test_one_seed_gives_every_deficit_and_window_and_the_identity_costs_nothing():
    found = module.one_seed(
        Lab(0), model=module.mlp, dataset=data_sets.digits, ends=(0, 20), starts=(0, 10), window=20, recovery=30, seed=0
    )
    assert found.deficit.values.tolist() == ["blur", "labels", "flip"]
    assert bool((found.sensitivity.sel(end=0) == 0).all())
    # blur until 20 and the window of 20 from 0 are one training
    assert found.window_sensitivity.sel(start=0) == found.sensitivity.sel(end=20, deficit="blur")
    assert found.step.values.tolist() == [0, 50] and found.layer.values.tolist() == ["linear1", "linear2", "logits"]
    both = xr.concat([found, found], "seed")
    figure = module.study.draw(both)
    assert [trace.name for trace in figure.data[:4]] == ["blur", "labels", "flip", "blur"]


def test_the_fisher_information_is_that_of_a_training_without_deficit():
    split = data_sets.digits()
    found = module.fisher(module.mlp, split, steps=50, generator=3, device="cpu").fisher
    net = train.build(module.mlp, shape=(1, 8, 8), num_classes=10, generator=3)
    trace = module.landscape.fim_trace(net, split.train[0][:200], per_layer=True, generator=3)
    np.testing.assert_allclose(found.sel(step=0), trace, rtol=1e-6)


def test_all_cnn_has_the_papers_layers():
    network = module.all_cnn((3, 32, 32), 10, generator=0)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [96, 96, 96, 192, 192, 192, 192, 192, 10]
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    weights = sum(m.weight.numel() for m in convolutions)
    assert 1.36e6 < weights < 1.38e6  # Springenberg et al.: about 1.4 million
