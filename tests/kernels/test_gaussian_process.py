import functools
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, PairwiseKernel, WhiteKernel
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from phenoscope import data, kernels
from phenoscope.core.errors import InputError

ERF = functools.partial(kernels.mlp_kernels, depth=2, act="erf", sigma_w2=1.5, sigma_b2=0.1)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def limit(a, b=None, name="nngp"):
    found = kernels.mlp_kernels(
        torch.from_numpy(a), None if b is None else torch.from_numpy(b), depth=3, sigma_w2=2.0, sigma_b2=0.1
    )
    return getattr(found, name).numpy()


@pytest.mark.filterwarnings("ignore")  # the checks give it what deserves a warning
@parametrize_with_checks([kernels.GaussianProcess(), kernels.NTKRegressor()])
def test_it_is_an_estimator_of_scikit_learns(estimator, check):
    check(estimator)


@pytest.mark.parametrize("outputs", [(), (3,)])
def test_it_is_scikit_learns_gaussian_process_with_the_kernel_precomputed(outputs):
    x, y, test = draw(40, 5), draw(40, *outputs, seed=1), draw(11, 5, seed=2)
    ours = kernels.GaussianProcess(noise=0.01).fit(x, y)
    noise = 0.01 * limit(x).diagonal().mean()
    assert ours.jitter_ == pytest.approx(noise)

    def looked_up(a, b, gamma=None):
        return limit(a[None], b[None]).item()

    theirs = GaussianProcessRegressor(PairwiseKernel(metric=looked_up), alpha=noise, optimizer=None).fit(x, y)
    for name in ("return_std", "return_cov"):
        mean, spread = ours.predict(test, **{name: True})
        their_mean, their_spread = theirs.predict(test, **{name: True})
        np.testing.assert_allclose(mean, their_mean, rtol=1e-6, atol=1e-8)
        shared = their_spread if not outputs else their_spread[..., 0]
        np.testing.assert_allclose(spread, shared, rtol=1e-6, atol=1e-8)
    assert mean.shape == (11, *outputs)
    np.testing.assert_allclose(ours.predict(test), mean)
    # theirs is summed over outputs too
    assert ours.log_marginal_likelihood() == pytest.approx(theirs.log_marginal_likelihood_value_, rel=1e-9)


def test_the_marginal_likelihood_is_the_density_of_the_targets_summed_over_outputs():
    x, y = draw(12, 4), draw(12, 2, seed=1)
    gp = kernels.GaussianProcess(ERF, noise=0.1).fit(x, y)
    cov = ERF(torch.from_numpy(x)).nngp.numpy() + gp.jitter_ * np.eye(12)
    expected = sum(multivariate_normal(np.zeros(12), cov).logpdf(column) for column in y.T)
    assert gp.log_marginal_likelihood() == pytest.approx(expected, rel=1e-10)


def test_the_likelihood_and_the_test_error_prefer_the_noise_that_there_is():
    x = draw(120, 2)
    truth = np.sin(2 * x[:, 0]) * x[:, 1]
    y = truth + 0.3 * draw(120, seed=1)
    found = {}
    for noise in (1e-5, 0.02, 10.0):
        gp = kernels.GaussianProcess(noise=noise).fit(x[:60], y[:60])
        found[noise] = (gp.log_marginal_likelihood(), -np.mean((gp.predict(x[60:]) - truth[60:]) ** 2))
    assert max(found, key=lambda noise: found[noise][0]) == max(found, key=lambda noise: found[noise][1]) == 0.02


def test_trained_networks_are_predicted_as_the_closed_form_says():
    x, y, test = draw(15, 3), draw(15, 2, seed=1), draw(6, 3, seed=2)
    ntk = kernels.NTKRegressor(ERF, ridge=1e-3).fit(x, y)
    expected = kernels.predict(ERF, *map(torch.from_numpy, (x, y, test)), ridge=1e-3)
    mean, std = ntk.predict(test, return_std=True)
    np.testing.assert_allclose(mean, expected.mean, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(std, expected.std, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(ntk.predict(test, return_cov=True)[1], expected.covariance, rtol=1e-7, atol=1e-9)
    bayes = kernels.GaussianProcess(ERF, noise=0.0).fit(x, y).predict(test, return_std=True)
    assert np.abs(bayes[0] - mean).max() > 1e-3 and (bayes[1] < std).all()  # conditioning leaves the least spread


def test_variances_are_never_negative_where_they_vanish():
    x = np.repeat(draw(20, 2), 5, axis=0)
    y = np.repeat(draw(20, seed=1), 5)
    for estimator in (kernels.GaussianProcess(noise=0.0), kernels.NTKRegressor(ridge=0.0)):
        estimator.fit(x, y)
        mean, std = estimator.predict(x, return_std=True)
        cov = estimator.predict(x, return_cov=True)[1]
        assert estimator.jitter_ > 0  # repeated examples make a singular matrix
        assert (std >= 0).all() and (cov.diagonal() >= 0).all() and std.max() < 1e-3
        np.testing.assert_allclose(mean, y, atol=1e-4)
        assert np.array_equal(cov, cov.T)


def test_blocks_do_not_change_what_is_predicted(monkeypatch):
    x, y, test = draw(15, 3), draw(15, seed=1), draw(200, 3, seed=2)
    for estimator in (kernels.GaussianProcess(), kernels.NTKRegressor()):
        whole = estimator.fit(x, y).predict(test, return_std=True)
        root = np.sqrt(estimator.predict(test, return_cov=True)[1].diagonal())
        np.testing.assert_allclose(whole[1], root, rtol=1e-7)
        monkeypatch.setattr("phenoscope.kernels.gaussian_process._NUMBERS", 1)
        monkeypatch.setattr("phenoscope.kernels.gaussian_process._DIAGONAL", 7)
        blocked = estimator.predict(test, return_std=True)
        monkeypatch.undo()
        np.testing.assert_allclose(blocked, whole, rtol=1e-10, atol=1e-12)


def test_one_hot_labels_make_a_classifier_of_digits():
    split = data.digits(train=300, generator=0)
    (x, y), (test, labels) = ((a.flatten(1).numpy(), b.numpy()) for a, b in (split.train, split.test))
    for estimator in (kernels.GaussianProcess(), kernels.NTKRegressor()):
        guess = estimator.fit(x, np.eye(10)[y] - 0.1).predict(test).argmax(1)
        assert (guess == labels).mean() > 0.9
    shuffled = np.random.default_rng(0).permutation(y)
    control = kernels.GaussianProcess().fit(x, np.eye(10)[shuffled] - 0.1).predict(test).argmax(1)
    assert (control == labels).mean() < 0.25


def test_two_fits_agree_to_the_last_bit_and_copies_predict_alike():
    x, y, test = draw(15, 3), draw(15, seed=1), draw(6, 3, seed=2)
    torch.manual_seed(0)
    gp = kernels.GaussianProcess(ERF, noise=0.1).fit(x, y)
    torch.manual_seed(1)
    again = clone(gp).fit(x, y)
    assert again.noise == 0.1 and again.kernel.keywords == ERF.keywords
    state = torch.get_rng_state()
    expected = gp.predict(test, return_std=True)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(again.predict(test, return_std=True), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(gp)).predict(test, return_std=True), expected)
    with tempfile.TemporaryDirectory() as folder:  # arrays that may not be written to
        joblib.dump(gp, Path(folder) / "gp")
        mapped = joblib.load(Path(folder) / "gp", mmap_mode="r")
        np.testing.assert_array_equal(mapped.predict(test, return_std=True), expected)


def test_inputs_of_more_axes_reach_the_kernel_as_they_are():
    images, seen = draw(9, 1, 4, 4), []

    def kernel(x1, x2=None):
        seen.append(x1.shape[1:])
        return ERF(x1, x2)

    gp = kernels.GaussianProcess(kernel).fit(images, draw(9, seed=1))
    gp.predict(images, return_std=True)
    assert set(seen) == {torch.Size([1, 4, 4])}


def test_a_network_stands_for_its_infinitely_wide_limit():
    images, y, test = draw(12, 1, 4, 4), draw(12, seed=1), draw(5, 1, 4, 4, seed=2)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 1))
    before = [p.clone() for p in network.parameters()]
    for make in (kernels.GaussianProcess, kernels.NTKRegressor):
        found = make(network).fit(images, y).predict(test, return_std=True)
        expected = clone(make(kernels.infinite(network))).fit(images, y).predict(test, return_std=True)
        np.testing.assert_array_equal(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    with pytest.raises(InputError, match="kernel must be callable"):
        kernels.predict(network, *map(torch.from_numpy, (images, y, test)))


def test_it_searches_and_validates_with_scikit_learns_tools():
    x = draw(60, 3)
    y = x[:, 0] * x[:, 1]
    assert cross_val_score(kernels.GaussianProcess(noise=1e-3), x, y, cv=3).min() > 0.5
    assert kernels.NTKRegressor().set_params(ridge=0.5).get_params() == {"kernel": None, "ridge": 0.5}


def test_bad_input_is_refused():
    x, y = draw(5, 3), draw(5)
    gp = kernels.GaussianProcess().fit(x, y)
    with pytest.raises(InputError, match="not both"):
        gp.predict(x, return_std=True, return_cov=True)
    with pytest.raises(InputError, match="ridge must be"):
        kernels.GaussianProcess(noise=-1.0).fit(x, y)
    with pytest.raises(InputError, match="kernel must be callable"):
        kernels.GaussianProcess("rbf").fit(x, y)
    with pytest.raises(ValueError, match="NaN"):
        gp.fit(np.full((5, 3), np.nan), y)


def test_the_kernel_serves_in_scikit_learns_estimators():
    x, y, test = draw(30, 4), draw(30, seed=1), draw(8, 4, seed=2)
    kernel = kernels.SklearnKernel()
    np.testing.assert_allclose(kernel(x, test), limit(x, test), rtol=1e-12)
    np.testing.assert_allclose(kernel.diag(x), limit(x).diagonal(), rtol=1e-12)
    np.testing.assert_allclose(kernels.SklearnKernel(get="ntk")(x), limit(x, name="ntk"), rtol=1e-12)
    noise = 0.05 * limit(x).diagonal().mean()
    ours = kernels.GaussianProcess(noise=0.05).fit(x, y).predict(test, return_std=True)
    theirs = GaussianProcessRegressor(clone(kernel), alpha=noise).fit(x, y).predict(test, return_std=True)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    scaled = GaussianProcessRegressor(ConstantKernel(0.5) * kernel + WhiteKernel(0.1)).fit(x, y)  # by its gradient
    assert np.isfinite(scaled.log_marginal_likelihood_value_) and len(scaled.kernel_.theta) == 2
    labels = x[:, 0] > 0
    assert SVC(kernel=kernel).fit(x, labels).score(x, labels) > 0.9


def test_scikit_learn_is_imported_when_an_estimator_is():
    program = (
        "import sys, phenoscope.kernels as k; before = 'sklearn' in sys.modules; k.GaussianProcess; "
        "print(before, 'sklearn' in sys.modules, 'NTKRegressor' in dir(k))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True", "True"]
