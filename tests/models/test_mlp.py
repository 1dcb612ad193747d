import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.models import NTKLinear, deep_linear, end_to_end, mlp


def names(network):
    return list(network._modules)


def test_a_hidden_layer_is_linear_norm_activation_dropout_in_this_order():
    network = mlp((1, 8, 8), 10, width=(32, 16), norm="batch", dropout=0.1, activation="tanh", generator=0)
    assert names(network) == [
        "flatten",
        *("linear1", "norm1", "act1", "dropout1"),
        *("linear2", "norm2", "act2", "dropout2"),
        "logits",
    ]
    assert isinstance(network.act1, nn.Tanh) and isinstance(network.norm1, nn.BatchNorm1d)
    assert network.linear1.bias is None and network.logits.bias is not None
    assert (network.linear1.in_features, network.linear2.out_features) == (64, 16)


def test_width_may_be_one_number_for_depth_layers():
    widths = [m.out_features for m in mlp((4,), 2, width=7, depth=3, generator=0) if isinstance(m, nn.Linear)]
    assert widths == [7, 7, 7, 2]
    assert len([m for m in mlp((4,), 2, width=7, generator=0) if isinstance(m, nn.Linear)]) == 3
    assert names(mlp((4,), 2, depth=0, width=5, generator=0)) == ["flatten", "logits"]
    assert names(mlp((4,), None, width=(5,), generator=0)) == ["flatten", "linear1", "act1"]


def test_an_activation_may_be_a_module_class():
    assert isinstance(mlp((4,), 2, activation=nn.Mish, generator=0).act1, nn.Mish)
    assert mlp((4,), 2, width=(3,), activation=nn.PReLU, generator=0).act1.weight.item() == 0.25


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_one_example_is_a_batch(norm):
    network = mlp((3, 5), 4, norm=norm, generator=0).eval()
    assert network(torch.zeros(1, 3, 5)).shape == (1, 4)
    assert network.double()(torch.zeros(1, 3, 5, dtype=torch.float64)).dtype == torch.float64


def test_the_seed_decides_the_weights_and_torchs_generator_stays():
    state = torch.get_rng_state()
    one, same, other = (mlp((4,), 2, generator=seed).logits.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("knobs", "culprit"),
    [
        ({"width": (3, 0)}, "widths"),
        ({"width": (3,), "depth": 2}, "depth=2"),
        ({"width": 3, "depth": -1}, "depth"),
        ({"activation": "rellu"}, "rellu"),
        ({"activation": int}, "nn.Module"),
        ({"norm": "bn"}, "bn"),
        ({"dropout": 1.0}, "dropout"),
        ({"init": "xavier"}, "xavier"),
        ({"parametrization": "ntk", "norm": "layer"}, "norm"),
        ({"parametrization": "ntk", "init": "torch"}, "NTK"),
        ({"parametrization": "mup"}, "mup"),
    ],
)
def test_bad_knobs_are_named(knobs, culprit):
    with pytest.raises(InputError, match=culprit):
        mlp((4,), 2, **knobs)
    with pytest.raises(InputError, match="shape"):
        mlp((), 2)
    with pytest.raises(InputError, match="num_classes"):
        mlp((4,), 0)


def test_deep_linear_is_the_product_of_its_matrices():
    network = deep_linear((2, 3), 4, width=(7, 5), generator=0).double()
    product = end_to_end(network)
    x = torch.randn(9, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # the same sums in another order, in float64
    torch.testing.assert_close(x.flatten(1) @ product.T, network(x), rtol=1e-12, atol=1e-12)
    assert product.shape == (4, 6) and product.requires_grad
    assert all(m.bias is None for m in network if isinstance(m, nn.Linear))


def test_end_to_end_refuses_what_is_not_a_linear_chain():
    for network in (mlp((4,), 2, generator=0), nn.Sequential(nn.Flatten())):
        with pytest.raises(InputError, match="linear"):
            end_to_end(network)


def test_ntk_layers_take_the_place_of_all_linear_layers():
    network = mlp((4,), 2, parametrization="ntk", generator=0)
    assert [type(m) for m in network if hasattr(m, "weight")] == [NTKLinear] * 3
