import torch
from torch import nn

from phenoscope import models
from phenoscope.train.statistics import batch_norms, refresh_statistics_


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def test_statistics_are_the_plain_mean_over_batches_as_torch_computes_it():
    model, x = network(), torch.randn(600, 3)
    refresh_statistics_(model, (x, torch.zeros(600)))
    reference = network().eval()
    torch.optim.swa_utils.update_bn([x[:256], x[256:512], x[512:]], reference)
    torch.testing.assert_close(model[1].running_mean, reference[1].running_mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model[1].running_var, reference[1].running_var, rtol=1e-5, atol=1e-6)


def test_modes_momentum_and_parameters_are_left_as_they_were():
    model = network().train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.named_parameters()}
    assert refresh_statistics_(model, (torch.randn(8, 3), torch.zeros(8))) is model
    assert [module.training for module in model] == [True, True, False, True] and model[1].momentum == 0.1
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())


def test_a_network_without_statistics_stays_as_it_is():
    model = models.mlp((3,), 2, width=(4,), generator=0)
    assert not batch_norms(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    refresh_statistics_(model, (torch.randn(8, 3), torch.zeros(8)))
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
