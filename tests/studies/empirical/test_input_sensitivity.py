import functools

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.metrics import roc_auc_score
from torch import nn

from phenoscope import data, measure
from phenoscope.lab.map import Lab
from phenoscope.studies.empirical import input_sensitivity as module

OBSERVABLES = module.study.observables


def result(count=12):
    rng = np.random.default_rng(0)
    norm = np.exp(rng.normal(size=count))
    values = {
        "test_norm": norm,
        "train_accuracy": np.r_[np.full(count - 2, 1.0), 0.5, 0.98],
        "test_accuracy": 0.9 - 0.1 * np.argsort(np.argsort(norm)) / count,
        "auc": np.linspace(0.6, 0.9, count),
        "noise": np.resize([0.0, 0.1, 0.3], count),
        "contrast": np.linspace(-0.4, -0.2, count),
        "contrast_at_start": np.linspace(-0.1, 0.1, count),
    }
    values["auc"][3] = np.nan  # it made no error
    return xr.Dataset({name: ("network", value) for name, value in values.items()}, {"network": range(count)})


def test_the_observables_are_read_off_the_networks_that_fit():
    found = {claim: observe(result()) for claim, observe in OBSERVABLES.items()}
    np.testing.assert_allclose(found["jacobian-tracks-gap"], 1.0)  # of a perfect order every part is perfect
    assert found["jacobian-tracks-gap"].dims == ("network",) and found["jacobian-tracks-gap"].size == 10
    clean = np.linspace(0.6, 0.9, 12)[[0, 6, 9]]
    assert float(found["pointwise-jacobian-flags-errors"]) == pytest.approx(clean.mean())
    assert float(found["pointwise-jacobian-flags-errors-every-net"]) == pytest.approx(0.6)
    trained, start = np.median(np.linspace(-0.4, -0.2, 12)[:10]), np.median(np.linspace(-0.1, 0.1, 12)[:10])
    assert float(found["robust-on-manifold"]) == pytest.approx(trained)
    assert float(found["robust-on-manifold-learned"]) == pytest.approx(trained - start)


def test_pseudo_values_average_to_the_jackknife_estimate():
    one = result()
    one["test_accuracy"][:] = np.random.default_rng(1).uniform(size=12)
    found = OBSERVABLES["jacobian-tracks-gap"](one).values
    x, y = np.log(one.test_norm.values[:10]), (one.train_accuracy - one.test_accuracy).values[:10]
    from scipy.stats import spearmanr

    whole = spearmanr(x, y).statistic
    without = [spearmanr(np.delete(x, i), np.delete(y, i)).statistic for i in range(10)]
    np.testing.assert_allclose(found, 10 * whole - 9 * np.array(without), rtol=1e-9)


def test_networks_that_do_not_fit_leave_nothing_to_say():
    one = result()
    one["train_accuracy"][:] = 0.9
    assert all("not_applicable" in observe(one).attrs for observe in OBSERVABLES.values())


def test_the_auc_is_sklearns():
    rng = torch.Generator().manual_seed(0)
    score, positive = torch.randint(5, (60,), generator=rng).float(), torch.randint(2, (60,), generator=rng).bool()
    assert module.auc(score, positive) == pytest.approx(roc_auc_score(positive, score))
    assert np.isnan(module.auc(score, torch.ones(60, dtype=torch.bool)))


def test_random_inputs_have_the_datas_spread_by_coordinate_and_the_examples_norms():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 1, 30, generator=rng) * torch.linspace(0.1, 2, 30) + torch.linspace(-1, 1, 30)
    drawn = module.gaussian(x, 3000, generator=1)
    torch.testing.assert_close(drawn.flatten(1).norm(dim=1), x[:3000].flatten(1).norm(dim=1))
    assert drawn.shape == (3000, 1, 30)
    # norms of 30 coordinates vary by a tenth or so, and scaling one by another shifts means and spreads as much
    torch.testing.assert_close(drawn.mean(0), x.mean(0), rtol=0.1, atol=0.1)
    assert float((drawn.std(0) - x.std(0)).abs().max()) < 0.2 < float(x.std(0).max() - x.std(0).min())


def test_a_network_that_is_flat_at_the_data_has_a_negative_contrast():
    logit = functools.partial(measure.jacobian_norm, output="logit")
    near, far = torch.full((5, 2), -1.0), torch.full((5, 2), 1.0)
    kink = nn.Sequential(nn.Linear(2, 2, bias=False), nn.LeakyReLU(0.25))
    with torch.no_grad():
        kink[0].weight.copy_(torch.eye(2))
    assert module.contrast(logit, kink, near, far) == pytest.approx(np.log(0.25))
    assert module.contrast(logit, kink, far, near) == pytest.approx(-np.log(0.25))


def test_one_shape_holds_every_noise_and_decay():
    found = module.one_shape(
        Lab(0), model=module.bench.mlp, dataset=functools.partial(data.digits, train=200), width=16, depth=2,
        noises=(0.0, 0.3), draws=1, steps=40, points=20,
    )  # fmt: skip
    assert found.sizes["network"] == 4 and found.noise.values.tolist() == [0.0, 0.0, 0.3, 0.3]
    assert found.decay.values.tolist() == [0.0, 1e-3] * 2
    assert ((found.rate > 0.003) & (found.rate < 0.1)).all() and len(set(found.rate.values)) == 4
    assert (found.transitions_data > 0).all() and not found.drop_vars(["auc", "auc_logit"]).isnull().to_array().any()
