import functools

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from phenoscope import data, models
from phenoscope.core.errors import InputError
from phenoscope.train import Ensemble, Fleet, States, Swag, build, fit, fleet, multiswag, outputs, swag
from phenoscope.train.ensembles.swag import Moments

SPLIT = data.digits(train=200)
TEST = SPLIT.test[0][:60]
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
PHASE = {"steps": 24, "every": 4, "optimizer": SGD, "batch_size": 50}


def mlp():
    return models.mlp((1, 8, 8), 10, width=(12,))


def normed():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10))


def around(iterates, rank):
    """A Gaussian of planted iterates (n, P)."""
    network = nn.Linear(iterates.shape[1], 1, bias=False).to(iterates)
    moments = Moments(["weight"], rank, at=range(1, len(iterates) + 1), one=True)
    for step, iterate in enumerate(iterates, 1):
        moments.keep(step, {"weight": iterate[None]})
    return Swag(Fleet.of([network]), *moments.gaussian(), SPLIT.train)


def vectors(networks):
    return torch.cat([value.flatten(1) for value in networks.parameters.values()], 1)


def iterates(n=40, size=4):
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.randn(n, size, generator=generator, dtype=torch.float64) @ mixing + torch.arange(size)


def test_samples_have_the_covariance_of_the_definition():
    w, rank = iterates(), 10
    means = torch.stack([w[: i + 1].mean(0) for i in range(len(w))])  # running means, after each iterate
    columns = (w - means)[-rank:].T
    low_rank, diagonal = columns @ columns.T / (rank - 1), w.var(0, correction=0).diag()
    found = around(w, rank)
    torch.testing.assert_close(found.mean["weight"][0, 0], w.mean(0))
    torch.testing.assert_close(found.variance["weight"][0, 0].diag(), diagonal)
    torch.testing.assert_close(found.deviations["weight"][0, :, 0].T, columns)
    for scale, alone, expected in ((1.0, False, (diagonal + low_rank) / 2), (0.5, True, diagonal / 2)):
        drawn = vectors(found.sample(20_000, scale=scale, diagonal=alone, generator=0))
        # 20,000 draws: an entry of the covariance is off by a hundredth of its size, about
        assert (drawn.T.cov() - expected).norm() < 0.05 * expected.norm()
        assert (drawn.mean(0) - w.mean(0)).norm() < 0.05 * expected.diag().sum().sqrt()
    # deviations from the last mean, or a forgotten half, are another covariance
    last = (w[-rank:] - w.mean(0)).T
    assert (last @ last.T / (rank - 1) - low_rank).norm() > 0.05 * expected.norm()


def test_without_variance_samples_lie_in_the_mean_and_the_span_of_the_deviations():
    w = iterates(n=30, size=12)
    found = around(w, 3)
    found.variance["weight"].zero_()
    away = vectors(found.sample(50, generator=1)) - w.mean(0)
    basis = torch.linalg.qr(found.deviations["weight"][0, :, 0].T).Q
    assert (away - away @ basis @ basis.T).norm() < 1e-10 * away.norm()
    assert torch.linalg.matrix_rank(away) == 3


def test_the_mean_is_that_of_torchs_averaged_model_with_its_own_batch_norm_statistics():
    model = build(normed, generator=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = swag(model, SPLIT.train, rank=5, generator=1, **PHASE)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and model.training
    at = range(4, 25, 4)
    states = fit(model, SPLIT.train, steps=24, optimizer=SGD, batch_size=50, generator=1, states=States(at=at)).states
    averaged = AveragedModel(model)
    for step in at:
        model.load_state_dict(states[step])
        averaged.update_parameters(model)
    update_bn([part[0] for part in zip(SPLIT.train[0].split(256), strict=True)], averaged)
    average = found.average()
    scores = outputs(averaged.module, TEST)
    torch.testing.assert_close(average.outputs(TEST)[0], scores, atol=1e-4, rtol=1e-4)
    # one sample without noise is the average
    still = Ensemble(found.sample(1, scale=0.0, generator=0)).probabilities(TEST)
    torch.testing.assert_close(still, scores.double().softmax(1), atol=1e-4, rtol=1e-4)
    # with the statistics of the last step the average is another network
    stale = Fleet(model, average.parameters, found.networks.buffers)
    assert (stale.outputs(TEST)[0] - scores).abs().max() > 1e-2


def test_every_sample_has_batch_norm_statistics_of_its_own():
    found = swag(build(normed, generator=0), SPLIT.train, rank=5, generator=1, **PHASE)
    drawn = found.sample(4, scale=4.0, generator=2)
    for sample in drawn:
        hidden = sample[1](SPLIT.train[0].flatten(1)).detach()
        torch.testing.assert_close(sample[2].running_mean, hidden.mean(0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(sample[2].running_var, hidden.var(0), atol=1e-5, rtol=1e-4)
    assert drawn.buffers["2.running_mean"].std(0).min() > 0


def test_a_fleet_has_the_gaussians_of_its_members_alone():
    networks = [build(normed, generator=seed) for seed in (4, 5)]
    parts = [SPLIT.train, (SPLIT.train[0].flip(0), SPLIT.train[1].roll(1))]
    together = swag(networks, parts, rank=3, generator=[1, 2], **PHASE)
    for index, seed in enumerate((1, 2)):
        alone = swag(networks[index], parts[index], rank=3, generator=seed, **PHASE)
        for ours, theirs in ((together.mean, alone.mean), (together.deviations, alone.deviations)):
            for name in ours:  # single precision over 24 steps, sums in another order
                torch.testing.assert_close(ours[name][index], theirs[name][0], atol=1e-4, rtol=1e-3)
    drawn = together.sample(3, generator=0)
    assert len(drawn) == 6 and len(together) == 2
    near = (vectors(drawn)[:, None] - vectors(together.average())).norm(dim=2).argmin(1)
    assert near.tolist() == [0, 0, 0, 1, 1, 1]


def test_parameters_that_are_not_trained_stay_as_they_are():
    model = build(mlp, generator=0)
    model.linear1.bias.requires_grad_(False).fill_(0.5)
    drawn = swag(model, SPLIT.train, generator=1, **PHASE).sample(2, generator=2)
    assert (drawn.parameters["linear1.bias"] == 0.5).all()
    assert not drawn[0].linear1.bias.requires_grad and drawn[0].linear1.weight.requires_grad


def test_multiswag_is_a_fleet_then_swag_then_samples():
    settings = {"members": 2, "samples": 3, "steps": 20, "swag_steps": 12, "every": 4, "optimizer": SGD}
    found = multiswag(mlp, SPLIT.train, generator=0, device="cpu", **settings)
    again = multiswag(mlp, SPLIT.train, generator=0, device="cpu", swag_lr=0.025, **settings)
    assert len(found) == 6
    assert torch.equal(found.probabilities(TEST), again.probabilities(TEST))  # half the rate is the default
    seeds = torch.randint(2**62, (3,), generator=torch.Generator().manual_seed(0)).tolist()
    trained = fleet(mlp, SPLIT.train, members=2, steps=20, optimizer=SGD, generator=seeds[0], device="cpu")
    half = functools.partial(SGD, lr=0.025)
    drawn = swag(trained, SPLIT.train, steps=12, every=4, optimizer=half, generator=seeds[1]).sample(
        3, generator=seeds[2]
    )
    assert torch.equal(vectors(found.members), vectors(drawn))


def test_collections_are_once_an_epoch_unless_told_otherwise_and_loaders_will_do():
    found = swag(build(mlp), SPLIT.train, epochs=3, optimizer=SGD, batch_size=50, generator=0)
    by_steps = swag(build(mlp), SPLIT.train, steps=12, every=4, optimizer=SGD, batch_size=50, generator=0)
    assert found.deviations["logits.bias"].shape == by_steps.deviations["logits.bias"].shape == (1, 3, 10)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*SPLIT.train), batch_size=40)
    for networks in (build(normed), [build(normed), build(normed)]):
        drawn = swag(networks, loader, epochs=2, optimizer=SGD, batch_size=40, generator=0).sample(2, generator=0)
        assert drawn.outputs(TEST[:1]).shape == (2 if isinstance(networks, nn.Module) else 4, 1, 10)


def test_wrong_settings_are_refused_with_what_to_do():
    model = build(mlp)
    for settings, said in (
        ({"steps": 8, "every": 8}, "fewer than two collections"),
        ({"steps": 24, "every": 4, "rank": 1}, "diagonal=True"),
        ({"every": 4}, "either steps or epochs"),
    ):
        with pytest.raises(InputError, match=said):
            swag(model, SPLIT.train, optimizer=SGD, **settings)
    found = around(iterates(), 3)
    for n, scale in ((0, 1.0), (1, -1.0), (1, float("nan"))):
        with pytest.raises(InputError, match="at least 1 network"):
            found.sample(n, scale=scale)
