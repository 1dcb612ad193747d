import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.models import cnn, cnn1d


def test_the_network_of_integrated_gradients():
    network = cnn((1, 8, 8), 10, width=(16, 32), pool=(1, 2), hidden=(64,), generator=0)
    kinds = [type(m) for m in network]
    assert kinds == [
        *(nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU, nn.MaxPool2d),
        *(nn.Flatten, nn.Linear, nn.ReLU, nn.Linear),
    ]
    assert network.linear1.in_features == 32 * 4 * 4
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_the_encoder_of_the_contrastive_bench():
    knobs = dict(width=(16, 32, 64), stride=(2, 1, 2), pool=1, norm="batch")
    network = cnn((3, 12, 12), None, **knobs, generator=0)
    assert network(torch.zeros(2, 3, 12, 12)).shape == (2, 64 * 9)
    assert all(m.bias is None for m in network if isinstance(m, nn.Conv2d))


def test_a_signal_network_with_strides_and_a_dense_layer():
    network = cnn1d((1, 40), 5, width=(16, 32, 32), kernel_size=(5, 3, 3), hidden=(64,), generator=0)
    assert [m.kernel_size[0] for m in network if isinstance(m, nn.Conv1d)] == [5, 3, 3]
    assert network.linear1.in_features == 32 * 5
    assert network(torch.zeros(3, 1, 40)).shape == (3, 5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13)])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("pool", [1, 2])
def test_the_head_fits_whatever_the_convolutions_leave(shape, kernel_size, stride, pool):
    knobs = dict(width=3, depth=2, kernel_size=kernel_size, stride=stride, pool=pool)
    try:
        network = cnn(shape, 4, **knobs, generator=0)
    except InputError as error:
        assert "nothing is left" in str(error) and pool * stride == 4
        return
    assert network(torch.zeros(1, *shape)).shape == (1, 4)


def test_a_mean_head_is_blind_to_the_place():
    network = cnn((1, 12, 12), 3, head="mean", pool=1, pooling="average", norm="layer", dropout=0.1, generator=0).eval()
    assert network.logits.in_features == 32
    x = torch.zeros(2, 1, 12, 12)
    x[0, 0, 3:6, 4:7], x[1, 0, 5:8, 2:5] = 1, 1
    one, other = network(x)
    # the same object elsewhere, far from the edges; sums in another order
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("knobs", "culprit"),
    [
        ({"kernel_size": (3, 3, 3)}, "kernel_size"),
        ({"stride": 0}, "stride"),
        ({"pool": (16, 1)}, "convolution 1"),
        ({"pooling": "min"}, "pooling"),
        ({"head": "gap"}, "head"),
        ({"width": ()}, "at least one"),
        ({"hidden": (0,)}, "widths"),
    ],
)
def test_bad_knobs_are_named(knobs, culprit):
    with pytest.raises(InputError, match=culprit):
        cnn((1, 8, 8), 10, **knobs)
    with pytest.raises(InputError, match="shape"):
        cnn((1, 8), 10)
    with pytest.raises(InputError, match="shape"):
        cnn1d((1, 8, 8), 10)
