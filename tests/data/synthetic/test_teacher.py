import pytest
import torch
from torch.nn import functional

from phenoscope.core.errors import InputError
from phenoscope.data import teacher


def test_a_linear_rule_is_recovered_by_least_squares():
    rule = teacher(20, norm=3.0, noise=0.1, dtype=torch.float64, generator=0)
    x, y = rule.sample(4000, generator=1)
    found = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    # each coefficient is off by noise / sqrt(n) = 0.0016
    assert (found - rule.weight).abs().max().item() < 0.01
    assert rule.weight.norm().item() == pytest.approx(3.0)
    assert (y - rule(x)).std().item() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(("name", "function"), [("relu", functional.relu), ("tanh", torch.tanh), ("erf", torch.erf)])
def test_one_layer_and_patches(name, function):
    rule = teacher(5, activation=name, generator=0)
    x = torch.randn(7, 4, 5)
    expected = torch.stack([function(x[:, k] @ rule.weight) for k in range(4)]).mean(0)
    torch.testing.assert_close(rule(x), expected)
    assert rule(x[:1, 0]).shape == (1,)


def test_the_rule_stays_while_draws_differ():
    rule, same = teacher(5, generator=0), teacher(5, generator=0)
    assert torch.equal(rule.weight, same.weight)
    assert not torch.equal(rule.sample(3, 1)[0], rule.sample(3, 2)[0])
    assert torch.equal(rule.sample(3, 1)[1], same.sample(3, 1)[1])


def test_bad_arguments_are_refused():
    for knobs in ({"d": 0}, {"d": 3, "noise": -1.0}, {"d": 3, "activation": "gelu"}):
        with pytest.raises(InputError):
            teacher(**knobs)
    with pytest.raises(InputError, match="5 dimensions"):
        teacher(5, generator=0)(torch.zeros(2, 4))
