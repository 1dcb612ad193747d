"""Whether a concept's scores differ from those of concepts that mean nothing."""

from __future__ import annotations

import warnings

from torch import Tensor


def rank_p(mean: Tensor, means: Tensor) -> float:
    """How far out a mean score stands among the mean scores of J pseudo-concepts, two-sided.

    p = (1 + #{j: |m_j - med| >= |m - med|}) / (J + 1), with med the median of the m_j: under the null hypothesis the
    concept is one more draw of the same kind, so that its rank is uniform.
    """
    centre = means.quantile(0.5)
    # means of the same shares in another order may differ by rounding
    beyond = (means - centre).abs() >= (mean - centre).abs() - 1e-12
    return float(1 + beyond.sum()) / (len(means) + 1)


def welch_p(scores: Tensor, others: Tensor) -> float:
    """Welch's two-sided t-test of equal means; of two constants, whether they are the same."""
    from scipy import stats

    if float(scores.var()) == 0 == float(others.var()):
        return 1.0 if scores[0] == others[0] else 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nearly equal scores of one side
        return float(stats.ttest_ind(scores.numpy(), others.numpy(), equal_var=False).pvalue)
