import pytest
import torch
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.train import Ensemble, Fleet, build


def fixed(*probabilities):
    """A network that gives these probabilities whatever it sees."""
    network = nn.Linear(3, len(probabilities))
    with torch.no_grad():
        network.weight.zero_()
        network.bias.copy_(torch.tensor(probabilities).log())
    return network


X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def test_probabilities_are_averaged_not_scores():
    networks = [fixed(0.98, 0.01, 0.01), fixed(0.1, 0.8, 0.1)]
    for ensemble in (Ensemble(networks), Ensemble(Fleet.of(networks))):
        found = ensemble.probabilities(X)
        assert found.dtype == torch.float64 and found.shape == (5, 3)
        torch.testing.assert_close(found, torch.tensor([[0.54, 0.405, 0.055]]).double().expand(5, 3), atol=1e-7, rtol=0)
        members = ensemble.member_probabilities(X)
        torch.testing.assert_close(members[0, 0], torch.tensor([0.98, 0.01, 0.01]).double(), atol=1e-7, rtol=0)
        # the mean of the scores would give (0.70, 0.20, 0.07), another prediction
        scores = torch.stack([network(X) for network in networks]).mean(0)
        assert (scores.softmax(1) - found).abs().max() > 0.1


def test_members_may_be_of_any_kind_and_work_in_evaluation_mode_in_batches():
    mixed = Ensemble(
        [
            build(lambda: nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.9), nn.Linear(8, 2))),
            nn.Linear(3, 2),
        ]
    )
    whole = mixed.probabilities(X)
    assert torch.equal(whole, mixed.probabilities(X))
    torch.testing.assert_close(mixed.probabilities(X, batch_size=2), whole)
    torch.testing.assert_close(mixed.member_probabilities(X, batch_size=3).mean(0), whole)
    torch.testing.assert_close(mixed.probabilities(X[:1]), whole[:1])
    assert len(mixed) == 2 and mixed[0].training and list(mixed)[1] is mixed[1]
    alone = Ensemble([mixed[1]])
    torch.testing.assert_close(alone.probabilities(X), mixed[1](X).double().softmax(1))


def test_small_probabilities_of_sure_networks_do_not_vanish():
    network = fixed(0.5, 0.5)
    with torch.no_grad():
        network.bias.copy_(torch.tensor([150.0, 0.0]))
    found = Ensemble([network, network]).probabilities(X)[0, 1]
    assert found == pytest.approx(torch.tensor(-150.0).double().exp().item(), rel=1e-6)
    assert torch.tensor([150.0, 0.0]).softmax(0)[1] == 0  # in single precision it would


def test_what_is_no_ensemble_is_refused():
    for wrong in ([], nn.Linear(3, 2), [torch.zeros(3)]):
        with pytest.raises(InputError, match="at least one network"):
            Ensemble(wrong)
    with pytest.raises(InputError, match=r"instead of \(N, C\)"):
        Ensemble([nn.Conv1d(1, 1, 1)]).probabilities(torch.zeros(4, 1, 3))
