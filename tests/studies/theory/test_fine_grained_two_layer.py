import numpy as np
import pytest
import torch
import xarray as xr

from phenoscope import kernels
from phenoscope.core.errors import InputError
from phenoscope.lab.map import Lab
from phenoscope.studies.benches import wide_nets as bench
from phenoscope.studies.theory import fine_grained_two_layer as module

study = module.study
ARM = dict(dataset=bench.digits, classes=(4, 9), n=40)


def result(**changes):
    step = np.arange(100)
    rates = np.array([0.1, 0.05, 0.02])
    measured = 14 * np.exp(-rates[:, None, None] * step) * np.ones((3, 2, 1))
    predicted = measured * 10 ** (0.05 * np.minimum(step, 30) / 30)
    shares = np.array([0.0, 0.5, 1.0])
    found = xr.Dataset(
        {
            "measured": (("trained_share", "seed", "step"), measured),
            "predicted": (("trained_share", "seed", "step"), predicted),
            "complexity": (("seed", "share"), np.array([[1.0, 2.0, 3.0], [1.0, 2.5, 2.0]])),
            "test_loss": (("seed", "share"), np.array([[0.1, 0.3, 0.5], [0.2, 0.45, 0.4]])),
        },
        {"trained_share": shares, "share": shares, "seed": [0, 1], "step": step},
    )
    return found.assign(changes)


def observe(claim, data):
    return study.observables[claim](data)


def test_curves_are_compared_at_their_worst_step_down_to_one_percent():
    assert float(observe("curve-predicted-true", result())) == pytest.approx(0.05)
    late = result()
    late.predicted.loc[dict(trained_share=0.0, step=slice(60, None))] = 1e-9  # below 1 percent: exp(-6)
    assert float(observe("curve-predicted-true", late)) == pytest.approx(0.05)
    late.predicted.loc[dict(trained_share=1.0, step=90)] *= 10
    assert float(observe("curve-predicted-random", late)) == pytest.approx(1.05)


def test_speeds_and_complexities_are_paired_and_what_is_not_fitted_counts_as_long_as_it_was_trained():
    # squares fall by exp(-2 rate): a tenth after ln(10) / (2 rate)
    np.testing.assert_allclose(observe("true-faster-than-random", result()), [58 / 12] * 2)
    never = result()
    never.measured.loc[dict(trained_share=1.0)] = 14.0
    np.testing.assert_allclose(observe("true-faster-than-random", never), [100 / 12] * 2)
    never.measured.loc[dict(trained_share=0.0)] = 14.0
    assert "not_applicable" in observe("true-faster-than-random", never).attrs
    np.testing.assert_allclose(observe("complexity-separates", result()), [3, 2])


def test_the_rank_correlation_is_over_all_levels_and_seeds():
    from scipy.stats import spearmanr

    found = result()
    expected = spearmanr(found.complexity.values.ravel(), found.test_loss.values.ravel()).statistic
    assert float(observe("complexity-tracks-test-error", found)) == pytest.approx(expected)


def test_what_was_not_run_does_not_apply():
    some = result().sel(trained_share=[0.5], share=[0.5, 1.0])
    for claim in set(study.observables) - {"complexity-tracks-test-error"}:
        assert "not_applicable" in observe(claim, some).attrs, claim


def test_examples_are_of_two_classes_of_norm_1_and_a_share_of_their_labels_is_random():
    (x, y), (test, test_y) = module.examples(Lab(0), share=0.0, seed=0, **ARM)
    (same, noisy), (_, noisy_test) = module.examples(Lab(0), share=1.0, seed=0, **ARM)
    assert torch.equal(x, same) and len(x) == 40 and len(test) > 100
    torch.testing.assert_close(x.norm(dim=1), torch.ones(40, dtype=torch.float64))
    assert set(y.flatten().tolist()) == {-1.0, 1.0}
    for true, changed in ((y, noisy), (test_y, noisy_test)):
        assert 0.3 < float((true != changed).double().mean()) < 0.7
    gram = kernels.two_layer_gram(torch.cat([x, test]))
    assert float(torch.linalg.eigvalsh(gram)[0]) > 0  # no example stands in both parts


def test_other_data_without_enough_examples_are_refused():
    x, y = torch.ones(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    with pytest.raises(InputError, match="no 40 training examples"):
        module.examples(Lab(0), **ARM | {"dataset": (x, y)}, share=0.0, seed=0)


def test_the_curve_is_that_of_the_labels_and_not_of_others():
    found = module.one_network(Lab(0), width=2048, steps=60, share=0.0, seed=0, **ARM)
    gap = np.abs(np.log10(found.measured / found.predicted))
    assert float(found.measured[0]) == pytest.approx(np.sqrt(40), rel=1e-6)  # f is zero at the start
    assert float(gap.max()) < 0.05
    (x, y), _ = module.examples(Lab(0), share=0.0, seed=0, **ARM)
    gram = kernels.two_layer_gram(x)
    other = y[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    lr = 0.5 / float(torch.linalg.eigvalsh(gram)[-1])
    permuted = kernels.training_curve(gram, other, lr=lr, steps=59).numpy()
    assert float(np.abs(np.log10(found.measured / permuted)).max()) > 3 * float(gap.max())


def test_the_curve_is_exactly_that_of_the_linearized_network_with_its_own_kernel():
    (x, y), _ = module.examples(Lab(0), share=1.0, seed=0, **ARM)
    network = bench.two_layer_relu(x.shape[1], width=256, antisymmetric=True, generator=0)
    gram = kernels.last_hidden_gram(network, x, layer="hidden")
    lr = 0.5 / float(torch.linalg.eigvalsh(gram)[-1])
    linear = kernels.linear_prediction(network, x, y, x, range(31), lr=lr, flow=False)
    norms = (linear - y).flatten(1).norm(dim=1)
    torch.testing.assert_close(kernels.training_curve(gram, y, lr=lr, steps=30), norms, rtol=1e-9, atol=0)


def test_complexity_and_loss_grow_with_the_share_of_random_labels():
    found = module.one_kernel(Lab(0), shares=(0.0, 0.5, 1.0), seed=0, **ARM)
    assert (np.diff(found.complexity) > 0).all() and (np.diff(found.test_loss) > 0).all()
    assert float(found.gram_smallest) > 0
