import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.models import cnn, fold_norm, gapnet, mlp


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (gapnet((3, 16, 16), generator=0), (3, 16, 16)),
        (mlp((7,), 3, norm="batch", generator=0), (7,)),
        (nn.Sequential(cnn((1, 8, 8), 3, norm="batch", generator=0), nn.Softmax(1)), (1, 8, 8)),
    ],
)
def test_the_folded_network_is_the_same_function_without_norms(network, shape):
    network = network.double().train()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 2, generator=generator)
            nn.init.normal_(module.bias, generator=generator)
    x = torch.randn(50, *shape, dtype=torch.float64, generator=generator)
    network(x)  # moves the running statistics
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold_norm(network)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in folded.modules())
    assert [n for n, _ in folded.named_modules()] == [n for n, _ in network.named_modules()]
    torch.testing.assert_close(folded(x), network.eval()(x))  # the same sums in float64
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_network_without_such_norms_is_refused():
    with pytest.raises(InputError, match="batch normalization"):
        fold_norm(mlp((4,), 2, generator=0))
