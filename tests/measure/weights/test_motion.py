import numpy as np
import pytest
import torch

from phenoscope.core.errors import InputError
from phenoscope.measure import weight_motion

RNG = np.random.default_rng(0)
A, B = (np.cumsum([RNG.normal(size=shape) for _ in range(4)], 0).astype(np.float32) for shape in ((3, 5), (2, 3, 2, 2)))
STATES = {
    step: {"a.weight": torch.from_numpy(A[i]), "b.weight": torch.from_numpy(B[i]), "a.bias": torch.full((3,), float(i))}
    for i, step in enumerate((0, 3, 10, 40))
}


def whole(i):
    return np.concatenate([A[i].ravel(), B[i].ravel()]).astype(float)


@pytest.mark.parametrize(("layer", "at"), [("a.weight", lambda i: A[i].ravel().astype(float)), ("all", whole)])
def test_each_number_is_that_of_its_definition(layer, at):
    found = weight_motion(STATES).sel(layer=layer)
    w0, end = at(0), at(3)
    path = 0.0
    for i, step in enumerate((0, 3, 10, 40)):
        w, one = at(i), found.sel(step=step)
        path += np.linalg.norm(w - at(i - 1)) if i else 0.0
        flipped, final = np.sign(w) != np.sign(w0), np.sign(end) != np.sign(w0)
        expected = {
            "magnitude": np.abs(w).mean(),
            "signs_changed": flipped.mean(),
            "signs_to_change": (np.sign(w) != np.sign(end)).mean(),
            "flips_made": flipped[final].mean(),
            "from_start": np.linalg.norm(w - w0),
            "from_end": np.linalg.norm(w - end),
            "cosine": w @ w0 / np.linalg.norm(w) / np.linalg.norm(w0),
            "path": path,
            "detour": path / np.linalg.norm(w - w0) if i else np.nan,
        }
        assert set(found.data_vars) == set(expected)
        for name, value in expected.items():  # both are sums of float64
            np.testing.assert_allclose(float(one[name]), value, rtol=1e-12, atol=1e-12, err_msg=name)


def test_the_ends_are_what_they_must_be():
    found = weight_motion(STATES)
    assert found.layer.values.tolist() == ["a.weight", "b.weight", "all"]  # no bias
    first, last = found.isel(step=0), found.isel(step=-1)
    for name, value in (("signs_changed", 0), ("from_start", 0), ("cosine", 1), ("path", 0), ("flips_made", 0)):
        np.testing.assert_allclose(first[name], value, atol=1e-12)
    for name, value in (("signs_to_change", 0), ("from_end", 0), ("flips_made", 1)):
        np.testing.assert_allclose(last[name], value, atol=1e-12)
    assert (found.detour.isel(step=slice(1, None)) >= 1 - 1e-12).all()


def test_a_straight_way_has_no_detour_and_one_without_flips_none_to_make():
    line = {step: {"w": torch.full((2, 2), 1.0 + step)} for step in range(4)}
    found = weight_motion(line).sel(layer="all")
    np.testing.assert_allclose(found.detour[1:], 1)
    np.testing.assert_allclose(found.cosine, 1)
    assert found.flips_made.isnull().all()


def test_names_choose_and_what_does_not_fit_is_named():
    found = weight_motion(STATES, names=["a.bias"])
    assert found.layer.values.tolist() == ["a.bias", "all"]
    for call, word in (
        (lambda: weight_motion({0: STATES[0]}), "two steps"),
        (lambda: weight_motion(STATES, names=["c"]), "'c'"),
        (lambda: weight_motion({0: {"b": torch.ones(2)}, 1: {"b": torch.ones(2)}}), "no weights"),
        (lambda: weight_motion({0: STATES[0], 5: {"a.weight": torch.ones(2, 2)}}), "step 5"),
    ):
        with pytest.raises(InputError, match=word):
            call()
