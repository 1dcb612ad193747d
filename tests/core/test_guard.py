"""A network is given back as it was found."""

import pytest
import torch
from torch import nn

from phenoscope.core.guard import unchanged


def test_modes_gradients_and_buffers_come_back_also_after_an_error():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    model[1].eval()
    model[0].weight.grad = gradient = torch.ones(3, 2)
    with pytest.raises(KeyboardInterrupt), unchanged(model):
        model.train()
        model(torch.randn(4, 2)).sum().backward()
        model.zero_grad()
        raise KeyboardInterrupt
    assert [module.training for module in model.modules()] == [True, True, False]
    assert model[0].weight.grad is gradient and model[0].bias.grad is None
    assert model[1].running_mean.tolist() == [0, 0, 0] and model[1].num_batches_tracked == 0
