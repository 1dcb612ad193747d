import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from phenoscope.core.errors import InputError
from phenoscope.theory import activation, linearity_ratio, random_features_curve, random_features_spectrum
from phenoscope.theory.asymptotics.sample_wise import features, ridge_predictions


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_linearity_has_its_closed_forms():
    for name, exact in (("identity", 1), ("relu", 0.5), ("abs", 0), ("leaky_relu", None), ("erf", None)):
        if name == "leaky_relu":
            exact = (1.01 / 2) ** 2 / ((1 + 0.01**2) / 2)
        if name == "erf":  # E z erf(z) = 2 / sqrt(3 pi), E erf(z)^2 = (2 / pi) asin(2 / 3)
            exact = 4 / (3 * math.pi) / (2 / math.pi * math.asin(2 / 3))
        assert linearity_ratio(name) == pytest.approx(exact, abs=1e-6)
    assert linearity_ratio("tanh") == pytest.approx(0.9305, abs=5e-5)  # the specification's figure


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu", "sin", "elu"])
def test_linearity_agrees_with_scipys_quadrature(name):
    def f(z):
        return activation(name).function(torch.tensor(z, dtype=torch.float64)).item()

    def mean(g):
        return integrate.quad(lambda z: g(z) * stats.norm.pdf(z), -9, 9, points=[0], epsabs=1e-10)[0]

    square, along = mean(lambda z: f(z) ** 2), mean(lambda z: z * f(z))
    assert linearity_ratio(name) == pytest.approx(along**2 / square, rel=1e-6)


def test_a_jump_has_no_derivative_and_still_a_linear_part():
    # E z sign(z) = sqrt(2 / pi); the panels end at zero
    assert linearity_ratio(torch.sign) == pytest.approx(2 / math.pi, rel=1e-6)
    with pytest.raises(InputError, match="neither"):
        linearity_ratio(torch.zeros_like)


@pytest.mark.parametrize("n", [5, 19, 20, 60])
def test_primal_and_dual_ridge_agree(n):
    z, y, z_test = normal(n, 20), normal(n, seed=1), normal(7, 20, seed=2)
    found = ridge_predictions(z, y, z_test, (1e-3, 1.0))
    for row, ridge in zip(found, (1e-3, 1.0), strict=True):
        primal = z_test @ torch.linalg.solve(z.T @ z + ridge * torch.eye(20), z.T @ y)
        dual = z_test @ z.T @ torch.linalg.solve(z @ z.T + ridge * torch.eye(n), y)
        torch.testing.assert_close(row, primal, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(row, dual, rtol=1e-8, atol=1e-8)


def test_ridge_is_scikit_learns():
    from sklearn.linear_model import Ridge

    z, y, z_test = normal(40, 15), normal(40, seed=1), normal(9, 15, seed=2)
    peer = Ridge(alpha=0.3, fit_intercept=False).fit(z.numpy(), y.numpy())
    np.testing.assert_allclose(ridge_predictions(z, y, z_test, (0.3,))[0], peer.predict(z_test), rtol=1e-8)


def test_linear_features_have_the_error_of_least_squares():
    # ridgeless least squares on d Gaussian inputs: E error = d / snr / (n - d - 1) for n > d + 1, whatever p >> d
    # (inverse Wishart). n = 2.5 d, 200 draws: one draw spreads by about a third, so their mean by 2.5 %
    d, n = 20, 50
    curve = random_features_curve("identity", d=d, p=200, ns=(n,), snr=0.5, ridge=1e-8, draws=200, generator=0)
    assert float(curve.error.mean()) == pytest.approx(2 * d / (n - d - 1), rel=0.05)


def test_without_noise_linear_features_have_no_peak():
    d = 15
    common = dict(d=d, p=150, ns=(8, d, 40), ridge=1e-4, draws=20, generator=0)
    noisy, clean, strong = (
        random_features_curve("identity", snr=snr, **common | {"ridge": ridge}).error.median("draw").squeeze()
        for snr, ridge in ((0.2, 1e-4), (math.inf, 1e-4), (0.2, 10.0))
    )
    assert noisy.sel(n=d) > 3 * noisy.sel(n=8) and noisy.sel(n=d) > 3 * noisy.sel(n=40)
    # the traps: labels without noise, or so much ridge that no mode is fitted
    assert clean.sel(n=d) < clean.sel(n=8)
    assert strong.sel(n=d) < 1.15 * strong.sel(n=8)


def test_a_nonlinear_peak_is_made_by_the_random_weights_and_averaging_removes_it():
    curve = random_features_curve(
        "tanh", d=15, p=100, ns=(15, 40, 100), snr=0.2, ridge=(1e-4, 0.3), ensembles=6, draws=12, generator=0
    ).error.median("draw")
    weak = curve.sel(ridge=1e-4)
    assert weak.sel(ensemble=1, n=100) > 3 * weak.sel(ensemble=1, n=40)
    shrunk = weak.sel(ensemble=1) / weak.sel(ensemble=6)
    assert shrunk.sel(n=100) > 2 * shrunk.sel(n=15)
    strong = curve.sel(ridge=0.3, ensemble=1)
    assert strong.sel(n=100) < strong.sel(n=40) < strong.sel(n=15)


def test_by_width_too_the_peak_is_where_there_are_as_many_features_as_samples():
    error = {
        p: float(
            random_features_curve("relu", d=20, p=p, ns=(40,), snr=2.0, ridge=1e-6, draws=15, generator=0)
            .error.median("draw").squeeze()
        )
        for p in (10, 20, 40, 80, 400)
    }  # fmt: skip
    assert max(error, key=error.__getitem__) == 40
    assert error[40] > 3 * error[10] and error[40] > 10 * error[400]


def test_draws_are_shared_so_that_curves_can_be_compared():
    common = dict(d=6, p=20, ns=(4, 9), snr=1.0, draws=2, generator=5, test=50)
    one = random_features_curve("tanh", ridge=0.1, **common)
    three = random_features_curve("tanh", ridge=(0.1, 1.0), ensembles=3, **common)
    # to rounding: several ridges are solved at once
    np.testing.assert_allclose(one.error.sel(ensemble=1), three.error.sel(ensemble=1, ridge=[0.1]), rtol=1e-9)
    assert one.equals(random_features_curve("tanh", ridge=0.1, **common))
    assert dict(three.sizes) == {"ridge": 2, "ensemble": 3, "n": 2, "draw": 2}
    # a function that is linear is the identity, whatever its name
    linear, identity = (
        random_features_curve(act, ridge=0.1, **common).error.values for act in (lambda z: z, "identity")
    )
    np.testing.assert_allclose(linear, identity, rtol=1e-9)


def test_infinite_ridge_predicts_nothing():
    # the error is then the variance of the signal, 1; 20 draws of 1000 points: 1 %
    curve = random_features_curve("relu", d=50, p=60, ns=(40,), snr=1.0, ridge=1e9, draws=20, generator=0)
    assert float(curve.error.mean()) == pytest.approx(1, rel=0.03)


def test_the_spectrum_is_that_of_the_features_and_the_gaps_close_at_the_two_peaks():
    d, p = 10, 80
    whole, linear = random_features_spectrum("tanh", d=d, p=p, n=30, generator=3)
    rng = torch.Generator().manual_seed(3)
    x, theta = (torch.randn(size, d, dtype=torch.float64, generator=rng) for size in (30, p))
    z = features(torch.tanh, theta, x)
    torch.testing.assert_close(whole, torch.linalg.eigvalsh(z @ z.T), rtol=1e-8, atol=1e-12)
    along = math.sqrt(0.9305 * 0.394294)  # E z tanh z = sqrt(r E tanh(z)^2)
    direct = torch.linalg.eigvalsh(along**2 * x @ theta.T @ theta @ x.T / (d * p))[-d:]
    torch.testing.assert_close(linear, direct, rtol=1e-3, atol=1e-9)
    smallest = {n: [float(part[0]) for part in random_features_spectrum("tanh", d=d, p=p, n=n, generator=0)]
                for n in (4, d, 30, p, 320)}  # fmt: skip
    assert smallest[d][1] < 0.1 * min(smallest[4][1], smallest[30][1])
    assert smallest[p][0] < 0.1 * min(smallest[30][0], smallest[320][0])
    rest, _ = random_features_spectrum("identity", d=d, p=p, n=30)
    assert (rest[:-d].abs() < 1e-20).all() and (rest[-d:] > 1e-3).all()


def test_numbers_out_of_range_are_refused():
    common = dict(d=4, p=5, ns=(3,), snr=1.0, ridge=0.1)
    for changes in ({"d": 0}, {"ns": ()}, {"ns": (0,)}, {"snr": 0}, {"ridge": 0.0}, {"ridge": ()}, {"ensembles": 0}):
        with pytest.raises(InputError):
            random_features_curve("relu", **common | changes)
    with pytest.raises(InputError):
        random_features_spectrum("relu", d=3, p=0, n=2)
