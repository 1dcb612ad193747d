import functools
import math

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional

from phenoscope import data, measure, models, train
from phenoscope.core.errors import InputError
from phenoscope.measure.capacity.pac_bayes import noise_scale, sharpness_radius

SPLIT = data.digits(train=200)
PART = SPLIT.train
LOSS = functional.cross_entropy


@functools.cache
def trained():
    net = models.mlp((1, 8, 8), 10, width=(24, 24), generator=0)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    done = train.fit(net, PART, steps=200, optimizer=optimizer, generator=0)
    return net, start, done.history


def values(which, net=None, start=None, part=PART, **settings):
    own, first, _ = trained()
    found = measure.complexity(net or own, start or first, LOSS, part, which=which, generator=0, **settings)
    return {name: float(found.value.sel(measure=name)) for name in found.measure.values}


def scaled(factor):
    """The same function, its first layer times a factor and its last layer over it."""
    net, _, _ = trained()
    other = models.mlp((1, 8, 8), 10, width=(24, 24), generator=0)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        other.linear1.weight.mul_(factor)
        other.linear1.bias.mul_(factor)
        other.linear2.bias.mul_(factor)
        other.logits.weight.div_(factor)
    return other


def test_every_measure_of_a_network_that_fits_is_a_number():
    net, start, history = trained()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    gradients = [parameter.grad for parameter in net.parameters()]
    found = measure.complexity(
        net.train(), start, LOSS, PART, history=history, levels=(1.0, 0.1), draws=3, ascent=4, search=6, generator=0
    )
    assert found.sizes["measure"] >= 24
    assert set(found.family.values) == {"size", "margin", "spectral", "norm", "path", "flatness", "optimization"}
    assert found.value.notnull().all(), found.value.where(found.value.isnull(), drop=True).measure.values
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is grad and p.requires_grad for p, grad in zip(net.parameters(), gradients, strict=True))


def test_measures_are_their_formulas():
    net, start, _ = trained()
    weights = [getattr(net, name).weight.detach().double().numpy() for name in ("linear1", "linear2", "logits")]
    first = [start[f"{name}.weight"].double().numpy() for name in ("linear1", "linear2", "logits")]
    spec = np.array([np.linalg.norm(w, 2) ** 2 for w in weights])
    fro = np.array([(w**2).sum() for w in weights])
    moved = [w - w0 for w, w0 in zip(weights, first, strict=True)]
    margins = np.sort(measure.margin(net, PART).double().numpy())
    gamma = margins[math.ceil(0.1 * len(margins)) - 1] ** 2
    rows = np.array([np.linalg.norm(m, axis=1).sum() for m in moved])
    expected = {
        "params": sum(p.numel() for p in net.parameters()),
        "inverse-margin": 1 / gamma,
        "log-prod-spec": np.log(spec).sum(),
        "log-prod-spec/margin": np.log(spec.prod() / gamma),
        "sum-spec": 3 * spec.prod() ** (1 / 3),
        "sum-spec/margin": 3 * (spec.prod() / gamma) ** (1 / 3),
        "fro/spec": (fro / spec).sum(),
        "log-spec-orig": np.log(spec.prod() / gamma * (fro / spec).sum()),
        "log-spec-init": np.log(spec.prod() / gamma * sum((m**2).sum() / s for m, s in zip(moved, spec, strict=True))),
        "dist-spec": sum(np.linalg.norm(m, 2) ** 2 for m in moved),
        "log-bartlett": np.log(spec.prod() / gamma * ((rows / np.sqrt(spec)) ** (2 / 3)).sum() ** 3),
        "log-prod-fro": np.log(fro).sum(),
        "log-prod-fro/margin": np.log(fro.prod() / gamma),
        "sum-fro": 3 * fro.prod() ** (1 / 3),
        "sum-fro/margin": 3 * (fro.prod() / gamma) ** (1 / 3),
        "param-norm": fro.sum(),
        "frob-dist": sum((m**2).sum() for m in moved),
        "path-norm": float(measure.path_norm(net, PART[0])),
        "path-norm/margin": float(measure.path_norm(net, PART[0])) / gamma,
        "neg-entropy": -float(torch.distributions.Categorical(logits=net(PART[0]).detach()).entropy().mean()),
    }
    found = values(("size", "margin", "spectral", "norm", "path"))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[name] for name in expected], list(expected.values()), rtol=1e-4)  # float32


def test_bounds_are_their_formulas():
    net, start, _ = trained()
    w = torch.cat([p.detach().double().flatten() for p in net.parameters()])
    moved = w - torch.cat([start[name].double().flatten() for name, _ in net.named_parameters()])
    found = values("flatness", draws=3, ascent=3, search=5)
    sigma, relative = found["pacbayes-flat"] ** -0.5, found["pacbayes-mag-flat"] ** -0.5
    spread = found["sharpness-flat"] ** -0.5 / math.sqrt(math.log(2 * len(w)))
    for name, vector in (("orig", w), ("init", moved)):
        size = float(vector.square().sum())
        np.testing.assert_allclose(found[f"pacbayes-{name}"], size / 4 / sigma**2 + math.log(200 / sigma))
        np.testing.assert_allclose(found[f"sharpness-{name}"], size / 4 / spread**2 + math.log(200 / spread))
        terms = (1e-6 + (relative**2 + 1) * size / len(w)) / (1e-6 + relative**2 * moved.square())
        bound = float(terms.log().sum()) / 4 + math.log(200 / relative)
        np.testing.assert_allclose(found[f"pacbayes-mag-{name}"], bound)


def test_what_the_noise_costs_at_the_scale_found_is_the_drop_asked_for():
    """Against fresh draws one network at a time; the wrong version, a fixed scale, costs what it happens to cost."""
    net, _, _ = trained()
    for relative in (False, True):
        sigma = noise_scale(net, PART, relative=relative, drop=0.1, draws=40, search=12, generator=1)
        costs = []
        for draw in range(60):
            noisy = models.mlp((1, 8, 8), 10, width=(24, 24), generator=0)
            noise = torch.Generator().manual_seed(1000 + draw)
            with torch.no_grad():
                for own, p in zip(noisy.parameters(), net.parameters(), strict=True):
                    spread = ((sigma * p) ** 2 + 1e-6).sqrt() if relative else sigma
                    own.copy_(p + spread * torch.randn(p.shape, generator=noise))
            costs.append(train.accuracy(net, PART) - train.accuracy(noisy, PART))
        assert abs(np.mean(costs) - 0.1) < 0.04  # two means over 40 and 60 draws whose spread is about 0.06


def test_a_finer_search_changes_the_scale_by_no_more_than_a_step():
    net, _, _ = trained()
    settings = {"relative": False, "drop": 0.1, "draws": 5, "generator": 0}
    coarse, fine = (noise_scale(net, PART, search=search, **settings) for search in (7, 12))
    assert coarse <= fine <= coarse * 1e5 ** (1 / 2**7) * 1.0001


def test_the_worst_perturbation_is_worse_than_chance_and_stays_in_its_ball():
    net, _, _ = trained()
    alpha = sharpness_radius(net, LOSS, PART, relative=False, drop=0.1, ascent=10, search=10)
    sigma = noise_scale(net, PART, relative=False, drop=0.1, draws=5, search=10, generator=0)
    assert alpha < sigma / 2  # signs that conspire need far less than Gaussian noise
    linear = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        linear[1].weight.copy_(torch.eye(2))
    x, y = torch.tensor([[[0.4, 0.0]], [[0.0, 1.0]]]), torch.tensor([0, 1])
    # w = identity: the first example falls once its logits differ by 0: 0.4 (1 - 2 alpha) = 0, at alpha = 1/2
    found = sharpness_radius(linear, LOSS, (x, y), relative=False, drop=0.1, ascent=20, search=14)
    np.testing.assert_allclose(found, 0.5, rtol=2e-3)  # a step of the search is 1e5 ** (1 / 2**14)


def test_rescaling_layers_changes_flatness_but_not_paths_products_or_relative_flatness():
    names = ("path-norm", "log-prod-spec", "pacbayes-flat", "pacbayes-mag-flat", "sharpness-mag-flat", "sharpness-flat")
    before, after = (values(names, net=net, ascent=5) for net in (scaled(1.0), scaled(0.1)))
    for name in ("path-norm", "log-prod-spec"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-4)
    for name in ("pacbayes-mag-flat", "sharpness-mag-flat"):
        np.testing.assert_allclose(after[name], before[name], rtol=0.05)  # up to eps
    assert after["pacbayes-flat"] > 2 * before["pacbayes-flat"]
    assert after["sharpness-flat"] > 2 * before["sharpness-flat"]


def test_batch_norm_is_folded_first():
    net = models.cnn((1, 8, 8), 10, width=(4, 4), norm="batch", generator=0)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    train.fit(net, PART, steps=60, optimizer=functools.partial(torch.optim.Adam, lr=0.01), generator=0)
    names = ("spectral", "norm", "path", "params", "pacbayes-mag-flat")
    found = values(names, net=net, start=start, search=6)
    plain, first = models.fold_norm(net), models.cnn((1, 8, 8), 10, width=(4, 4), norm="batch", generator=0)
    folded_start = models.fold_norm(first).state_dict()
    again = values(names, net=plain, start=folded_start, search=6)
    np.testing.assert_allclose(list(found.values()), list(again.values()), rtol=1e-4)
    assert not math.isnan(found["path-norm"])


class Branching(nn.Module):
    """No chain of known layers, and it branches on values, which vmap does not bear."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x):
        hidden = self.first(x.flatten(1))
        if float(hidden.detach().sum()) == 1.5:
            hidden = -hidden
        return self.last(hidden.relu())


def test_a_network_of_any_make_gets_the_numbers_of_the_same_chain():
    net = Branching()
    start = {name: value.clone() for name, value in net.state_dict().items()}
    train.fit(net, PART, steps=100, optimizer=functools.partial(torch.optim.Adam, lr=0.01), generator=0)
    chain = nn.Sequential(nn.Flatten(), net.first, nn.ReLU(), net.last)
    chain_start = {f"{1 if name.startswith('first') else 3}.{name.split('.')[1]}": v for name, v in start.items()}
    names = ("spectral", "path", "flatness")
    one, other = values(names, net=net, start=start, search=6), values(names, net=chain, start=chain_start, search=6)
    np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-4)


def test_what_is_not_defined_is_missing_and_not_zero():
    net, start, _ = trained()
    fresh = models.mlp((1, 8, 8), 10, width=(24, 24), generator=5)
    found = values(("margin", "path", "log-spec-init"), net=fresh, start=fresh.state_dict())
    assert math.isnan(found["inverse-margin"])  # a network that errs more than one time in ten has no margin
    assert math.isnan(found["path-norm/margin"]) and not math.isnan(found["path-norm"])
    missing = measure.complexity(net, None, LOSS, PART, which=("frob-dist", "pacbayes-init", "log-bartlett"), search=3)
    assert missing.value.isnull().all()
    steps = measure.complexity(net, start, LOSS, PART, which=("steps-to-first", "steps-first-to-second"))
    assert steps.value.isnull().all()
    assert measure.complexity(fresh, None, LOSS, PART, which="pacbayes-flat", draws=2).value.isnull().all()


def test_steps_are_counted_to_the_first_that_reaches_a_level():
    net, start, _ = trained()
    history = xr.Dataset({"loss": ("step", [2.0, 0.5, 0.09, 0.2, 0.01])}, {"step": [1, 2, 3, 4, 5]})
    settings = {"which": ("steps-to-first", "steps-first-to-second"), "history": history}
    assert measure.complexity(net, start, LOSS, PART, **settings).value.values.tolist() == [3.0, 2.0]
    assert measure.complexity(
        net, start, LOSS, PART, **settings, levels=(0.1, 0.001)
    ).value.isnull().values.tolist() == [
        False,
        True,
    ]


def test_a_seed_gives_the_same_numbers():
    assert values("pacbayes-flat", search=6) == values("pacbayes-flat", search=6)


def test_what_cannot_be_asked_is_named():
    net, start, _ = trained()
    with pytest.raises(InputError, match="no measure 'spectrum'"):
        values("spectrum")
    with pytest.raises(InputError, match="init_state lacks"):
        measure.complexity(net, {}, LOSS, PART)
    with pytest.raises(InputError, match="drop"):
        values("flatness", drop=0)
    with pytest.raises(InputError, match="over `step`"):
        measure.complexity(net, start, LOSS, PART, which="optimization", history=[1, 2])
