import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phenoscope.core.errors import InputError
from phenoscope.prune import Masks, keep_top


def random_scores(seed=0, *shapes):
    rng = torch.Generator().manual_seed(seed)
    return {f"w{i}": torch.randn(shape, generator=rng) for i, shape in enumerate(shapes or [(7, 3), (5, 2, 3)])}


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.sampled_from(["global", "layer"]), st.integers(0, 5), st.booleans())
def test_exactly_the_share_survives_also_among_ties(density, scope, seed, tied):
    scores = random_scores(seed)
    if tied:
        scores = {name: score.round() for name, score in scores.items()}
    counts = keep_top(scores, density=density, scope=scope).counts
    if scope == "global":
        assert sum(counts.values()) == round(density * 51)
    else:
        assert counts == {"w0": round(density * 21), "w1": round(density * 30)}


def test_what_survives_has_the_highest_scores():
    scores = random_scores()
    masks = keep_top(scores, density=0.4)
    kept = torch.cat([scores[name][mask] for name, mask in masks.items()])
    gone = torch.cat([scores[name][~mask] for name, mask in masks.items()])
    assert kept.min() > gone.max()


def test_of_equal_scores_the_first_survive():
    scores = {"a": torch.ones(2, 2), "b": torch.ones(4)}
    assert keep_top(scores, density=5 / 8)["b"].tolist() == [True, False, False, False]
    assert keep_top(scores, density=3 / 8)["a"].tolist() == [[True, True], [True, False]]


def test_each_layer_may_have_a_share_of_its_own():
    masks = keep_top(random_scores(), density={"w0": 1 / 3, "w1": 0.5}, scope="layer")
    assert masks.counts == {"w0": 7, "w1": 15}


def test_what_is_gone_already_never_comes_back():
    scores = random_scores()
    first = keep_top({name: -score for name, score in scores.items()}, density=0.5)  # the lowest
    second = keep_top(scores, density=0.2, within=first)
    assert second & first == second and sum(second.counts.values()) == 10
    with pytest.raises(InputError, match="leaves only"):
        keep_top(scores, density=0.6, within=first)


def test_bad_input_is_named():
    scores = random_scores()
    with pytest.raises(InputError, match="from 0 to 1"):
        keep_top(scores, density=1.5)
    with pytest.raises(InputError, match="scope"):
        keep_top(scores, density=0.5, scope="filter")
    with pytest.raises(InputError, match="no scores"):
        keep_top({}, density=0.5)
    with pytest.raises(InputError, match="by name"):
        keep_top(scores, density={"w0": 0.5, "w1": 0.5})
    with pytest.raises(InputError, match="within= has no mask"):
        keep_top(scores, density=0.5, within=Masks({"w0": torch.ones(7, 3)}))
    scores["w1"][0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="1 scores of 'w1' are NaN"):
        keep_top(scores, density=0.5)
