import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.core.parameters import call, flatten, parameter_dict, unflatten, weight_names


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def test_a_vector_and_a_dictionary_are_the_same_numbers():
    parameters = parameter_dict(net())
    vector = flatten(parameters)
    assert len(vector) == 3 * 4 + 4 + 8 + 4 * 2 + 2
    back = unflatten(vector, parameters)
    assert list(back) == list(parameters) and all(torch.equal(back[n], parameters[n]) for n in parameters)
    with pytest.raises(InputError, match="a vector of 34 values"):
        unflatten(vector[1:], parameters)


def test_weights_are_parameters_of_two_dimensions():
    assert weight_names(net()) == ["0.weight", "2.weight"]


def test_frozen_parameters_are_left_out_unless_asked_for():
    model = net()
    model[0].requires_grad_(False)
    assert "0.weight" not in parameter_dict(model) and "0.weight" in parameter_dict(model, trainable=False)
    with pytest.raises(InputError, match="no trainable"):
        parameter_dict(model.requires_grad_(False))
    with pytest.raises(InputError, match="has no shape yet"):
        parameter_dict(nn.Sequential(nn.LazyLinear(3)))


def test_a_call_takes_other_parameters_and_changes_nothing():
    model, x = net(), torch.ones(5, 3)
    before = model(x)
    bias = torch.full((2,), 7.0, requires_grad=True)
    out = call(model, {"2.bias": bias}, x)
    torch.testing.assert_close(out, before - model[2].bias + 7)
    assert torch.autograd.grad(out.sum(), bias)[0].tolist() == [5.0, 5.0]
    assert torch.equal(model(x), before)
    with pytest.raises(InputError, match=r"no parameter '3\.bias'"):
        call(model, {"3.bias": bias}, x)


def test_shared_modules_and_shared_weights_take_the_value_in_all_places_and_get_their_own_back():
    torch.manual_seed(0)
    layer = nn.Linear(3, 3)
    twice, other = nn.Sequential(layer, layer), nn.Linear(3, 3)
    tied = nn.Sequential(layer, other)
    other.weight = layer.weight
    x, weight = torch.ones(1, 3), torch.eye(3)
    zero = {"0.bias": torch.zeros(3)}
    assert torch.equal(call(twice, {"0.weight": weight} | zero, x), x)
    assert torch.equal(call(tied, {"0.weight": 2 * weight, "1.bias": torch.zeros(3)} | zero, x), 4 * x)
    assert isinstance(layer.weight, nn.Parameter) and other.weight is layer.weight and twice(x).requires_grad
