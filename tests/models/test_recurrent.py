import pytest
import torch

from phenoscope.core.errors import InputError
from phenoscope.models import gru


def test_the_last_state_is_that_of_the_published_recursion():
    network = gru((2, 7), 3, width=4, generator=0).double()
    cell, x = network.gru, torch.randn(5, 2, 7, dtype=torch.float64)
    h = torch.zeros(5, 4, dtype=torch.float64)
    for moment in x.unbind(2):
        inner, recurrent = moment @ cell.weight_ih_l0.T + cell.bias_ih_l0, h @ cell.weight_hh_l0.T + cell.bias_hh_l0
        (ir, iz, ic), (hr, hz, hc) = inner.chunk(3, 1), recurrent.chunk(3, 1)
        keep = torch.sigmoid(iz + hz)
        h = keep * h + (1 - keep) * torch.tanh(ic + torch.sigmoid(ir + hr) * hc)
    torch.testing.assert_close(network(x), network.logits(h))  # the same sums, in float64


@pytest.mark.parametrize("knobs", [{"depth": 2, "dropout": 0.2}, {"norm": "layer"}])
def test_knobs(knobs):
    network = gru((1, 40), 10, **knobs, generator=0)
    assert network(torch.zeros(1, 1, 40)).shape == (1, 10)


@pytest.mark.parametrize("knobs", [{"depth": 0}, {"width": 0}, {"norm": "batch"}, {"dropout": 1.0}])
def test_bad_knobs_are_refused(knobs):
    with pytest.raises(InputError):
        gru((1, 40), 10, **knobs)
    with pytest.raises(InputError, match="length"):
        gru((1, 8, 8), 10)
