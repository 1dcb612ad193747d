import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import data
from phenoscope.core.errors import InputError
from phenoscope.represent import probe

SPLIT = data.digits(train=500)
TEST = SPLIT.test[0][:300], SPLIT.test[1][:300]


def test_it_is_scikit_learns_pipeline_on_the_features():
    found = probe(nn.Flatten(), SPLIT.train, TEST)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    pipeline.fit(SPLIT.train[0].flatten(1).numpy(), SPLIT.train[1].numpy())
    assert found == pytest.approx(pipeline.score(TEST[0].flatten(1).numpy(), TEST[1].numpy()), abs=0.005)
    assert found > 0.85


def test_features_that_say_nothing_give_chance():
    class Noise(nn.Module):
        def forward(self, x):
            return torch.randn(len(x), 8, generator=torch.Generator().manual_seed(len(x)))

    assert probe(Noise(), SPLIT.train, TEST) < 0.2


def test_scaling_uses_the_training_part_alone():
    x, y = TEST
    shifted = probe(nn.Identity(), SPLIT.train, (x + 100, y))
    assert shifted < 0.3  # statistics of the test part would undo the shift


def test_the_scale_of_the_features_does_not_matter():
    class Scaled(nn.Module):
        def forward(self, x):
            return x.flatten(1) * torch.logspace(-2, 2, 64)

    assert probe(Scaled(), SPLIT.train, TEST) == pytest.approx(probe(nn.Flatten(), SPLIT.train, TEST), abs=0.02)


def test_the_encoder_works_in_evaluation_mode_and_is_left_as_it_was():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.9)).train()
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    assert probe(encoder, SPLIT.train, TEST, batch_size=7) == probe(encoder, SPLIT.train, TEST)
    assert encoder.training and all(torch.equal(state[name], v) for name, v in encoder.state_dict().items())


def test_a_loader_may_be_given():
    loader = DataLoader(TensorDataset(*SPLIT.train), batch_size=64)
    assert probe(nn.Flatten(), loader, TEST) == probe(nn.Flatten(), SPLIT.train, TEST)


def test_few_iterations_are_no_warning():
    assert 0 <= probe(nn.Flatten(), SPLIT.train, TEST, C=100.0, max_iter=2) <= 1


def test_bad_input_is_named():
    x, y = SPLIT.train
    with pytest.raises(InputError, match="two classes"):
        probe(nn.Flatten(), (x, torch.zeros_like(y)), TEST)

    class Broken(nn.Module):
        def forward(self, x):
            return x.flatten(1) * np.inf

    with pytest.raises(InputError, match="finite"):
        probe(Broken(), SPLIT.train, TEST)
