import pytest
import torch

from phenoscope import models
from phenoscope.core.errors import InputError


def tokens():
    return torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("parametrization", ["standard", "ntk"])
@pytest.mark.parametrize("scores", ["linear", "relu"])
def test_tokens_come_out_as_they_went_in_and_their_order_does_not_matter(scores, parametrization):
    torch.manual_seed(0)
    layer, x = models.LinearAttention(12, heads=3, scores=scores, parametrization=parametrization), tokens()
    out = layer(x)
    assert out.shape == x.shape
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(layer(x[:, order]), out[:, order])
    out.sum().backward()
    assert all(p.grad is not None for name, p in layer.named_parameters() if "bias" not in name)


def test_one_head_written_out():
    torch.manual_seed(0)
    x = tokens()
    linear, relu = (models.LinearAttention(12, heads=1, scores=scores, bias=False) for scores in ("linear", "relu"))
    query, key, value = linear.query(x), linear.key(x), linear.value(x)
    torch.testing.assert_close(linear(x), linear.out(query @ key.transpose(1, 2) / 12**0.5 @ value))
    scores = (relu.key(x) @ relu.key(x).transpose(1, 2)).relu()
    torch.testing.assert_close(relu(x), relu.out(scores / scores.sum(-1, keepdim=True) @ relu.value(x)))
    assert not any("bias" in name for name in linear.state_dict())


def test_the_linear_scores_are_of_third_degree():
    layer = models.LinearAttention(12, heads=3, bias=False)
    torch.testing.assert_close(layer(2 * tokens()), 8 * layer(tokens()))
    relu = models.LinearAttention(12, heads=3, scores="relu", bias=False)
    torch.testing.assert_close(relu(2 * tokens()), 2 * relu(tokens()))  # its weights sum to one


def test_a_token_of_zeros_is_no_division_by_zero():
    assert torch.isfinite(models.LinearAttention(12, heads=3, scores="relu")(torch.zeros(1, 5, 12))).all()


def test_bad_knobs_are_refused():
    with pytest.raises(InputError, match="multiple of heads"):
        models.LinearAttention(12, heads=5)
    with pytest.raises(InputError, match="scores"):
        models.LinearAttention(12, heads=3, scores="softmax")
