import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from torch import nn

from phenoscope.studies.interpretability import tcav as module

study = module.study


@pytest.mark.parametrize("dose", [0.0, 0.25, 0.5, 1.0])
def test_a_dose_is_the_correlation_of_stripes_with_class_zero(dose):
    own, others = module.rates_of(dose)
    assert own + 3 * others == pytest.approx(1)  # a quarter of all images is striped
    scenes = module.scenes_of((own, others), 1000, seed=0)
    striped = (scenes.factors["train"].texture[:, 0] == 1).numpy()
    assert striped.any()
    found = np.corrcoef(striped, scenes.train[1] == 0)[0, 1]
    assert abs(found - dose) < 0.1  # three standard errors of a correlation from 1000 images


def test_reliance_is_the_drop_of_a_network_that_sees_stripes_alone():
    scenes = module.scenes_of((0.25, 0.25), 100, seed=0)

    class Stripes(nn.Module):
        """Decides for class 0 where pixels vary fast."""

        def forward(self, x):
            rough = (x.diff(dim=-1)[..., 1:, :].abs() + x.diff(dim=-2)[..., 1:].abs()).amax((1, 2, 3))
            return torch.stack([rough - 0.6, 0 * rough, 0 * rough, 0 * rough], 1)

    class Blind(nn.Module):
        def forward(self, x):
            return x.new_tensor([1.0, 0, 0, 0]).expand(len(x), 4)

    assert module.reliance(Stripes(), scenes) > 0.8
    assert module.reliance(Blind(), scenes) == 0


def result(**changes):
    generator = np.random.default_rng(0)
    score = np.zeros((2, 3, 3))
    score[0, :, 0], score[1, :, 0] = [1, 0.9, 0.8], [0.5, 0.5, 0.1]
    scores = generator.random((5, 2))
    found = xr.Dataset(
        {
            "score": (("arm", "seed", "concept"), score),
            "dose_score": (("dose", "dose_seed"), scores),
            "dose_drop": (("dose", "dose_seed"), scores + 0.3 * generator.random((5, 2))),
            "fake_p": (("test", "fake"), [[0.01, 0.05, 0.5, 0.04], [0.0, 0.0, 0.0, 0.0]]),
        },
        {
            "arm": ["A", "B"],
            "seed": range(3),
            "concept": list(module.CONCEPTS),
            "test": ["random_means", "welch"],
            "fake": range(4),
            "dose": range(5),
            "dose_seed": range(2),
        },
    )
    return found.assign(changes)


def test_the_observables_are_what_the_claims_say():
    observe, found = study.observables, result()
    used = observe["detects-used-concept"](found)
    assert used.dims == ("seed",)
    np.testing.assert_allclose(used, [0.5, 0.4, 0.7])
    significant = observe["random-concepts-fail-the-test"](found)
    assert significant.dims == ("concept",) and significant.concept.values.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(significant, [1, 0, 0, 1])


def test_the_agreement_of_score_and_reliance_is_spearmans_with_a_permutation_test():
    found = result()
    scores, drops = found.dose_score.values.ravel(), found.dose_drop.values.ravel()
    rho = study.observables["tracks-reliance-rho"](found)
    assert rho.dims == () and float(rho) == pytest.approx(stats.spearmanr(scores, drops).statistic)
    ours = float(study.observables["tracks-reliance-p"](found))
    theirs = stats.permutation_test(
        (scores,), lambda x: stats.spearmanr(x, drops).statistic, permutation_type="pairings", alternative="greater",
        n_resamples=2000, rng=np.random.default_rng(1),
    )  # fmt: skip
    # both are drawn: a share near 0.01 of 2000 has a standard error of 0.002
    assert abs(ours - theirs.pvalue) < 0.01
    reverse = float(study.observables["tracks-reliance-p"](result(dose_drop=-found.dose_drop)))
    assert reverse > 0.9


def test_what_a_run_lacks_does_not_apply():
    for claim in ("tracks-reliance-rho", "tracks-reliance-p"):
        observe = study.observables[claim]
        assert "no doses" in observe(result().drop_dims(["dose", "dose_seed"])).attrs["not_applicable"]
        assert "same score" in observe(result(dose_score=0 * result().dose_score + 1)).attrs["not_applicable"]
