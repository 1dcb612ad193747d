import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, SGDClassifier
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.explain import tcav
from phenoscope.explain.concepts.cav import concept_vector
from phenoscope.explain.concepts.significance import rank_p, welch_p


def network(width=12):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, 3)).eval()


def draws(sets, n=30, seed=0, shift=0.0):
    x = torch.randn(sets, n, 6, generator=torch.Generator().manual_seed(seed))
    x[:, :, 0] += shift
    return x


def small(**settings):
    """A test with less than it should have, which it says."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "little to go by")
        return tcav(**settings)


ASKED = dict(concept_x=draws(1, seed=1, shift=3)[0], random_sets=draws(20), class_x=draws(1, 40, seed=2)[0], runs=8)


def test_a_linear_head_gives_scores_of_zero_or_one():
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    result = small(model=net, layer="1", target=1, generator=0, **ASKED)
    assert set(result.scores.tolist()) <= {0.0, 1.0}
    response = net[2].weight[1].double() @ result.cavs.T  # S is w . v for every input
    assert torch.equal(result.scores, (response > 0).double())
    torch.testing.assert_close(result.magnitudes, response.abs().detach())


def test_scores_are_shares_of_rising_logits():
    net, step = network().double(), 1e-4
    result = small(model=net, layer="1", target=2, generator=0, **ASKED)
    inner = net[:2](ASKED["class_x"].double())
    for vector, score in zip(result.cavs, result.scores, strict=True):
        rises = net[2:](inner + step * vector)[:, 2] - net[2:](inner - step * vector)[:, 2]
        assert (rises > 0).double().mean() == score  # central differences: no sign is nearer to 0 than their error
    torch.testing.assert_close(result.cavs.norm(dim=1), torch.ones(8).double())


def test_sign_counts_equal_captums_for_the_same_vectors(tmp_path):
    from captum.concept import TCAV, Concept
    from captum.concept._utils.classifier import Classifier

    net = network()
    result = small(model=net, layer="1", target=0, generator=0, **ASKED)

    class Given(Classifier):
        def __init__(self, vector):
            super().__init__()
            self.vector = vector

        def train_and_eval(self, dataloader, **_):
            return {}

        def weights(self):
            return torch.stack([self.vector, -self.vector]).float()

        def classes(self):
            return [0, 1]

    for run in range(3):
        concepts = [
            Concept(i, name, [x]) for i, (name, x) in enumerate([("c", ASKED["concept_x"]), ("r", draws(20)[run])])
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = TCAV(net, ["1"], classifier=Given(result.cavs[run]), save_path=str(tmp_path / str(run)))
            scores = theirs.interpret(ASKED["class_x"], [concepts], target=0)["0-1"]["1"]["sign_count"]
        assert scores[0].item() == pytest.approx(result.scores[run].item(), abs=1e-6)


@pytest.mark.parametrize("classifier", ["sgd", "logistic"])
def test_for_spherical_gaussians_the_vector_is_the_difference_of_the_means(classifier):
    rng = np.random.default_rng(0)
    shift = rng.normal(size=20)
    vector, accuracy = concept_vector(rng.normal(size=(2000, 20)) + shift, rng.normal(size=(2000, 20)), classifier, 0)
    assert vector @ shift / np.linalg.norm(shift) > 0.95
    assert accuracy > 0.95  # Bayes: Phi(|shift| / 2), about 0.98


@pytest.mark.parametrize(("classifier", "peer"), [("sgd", SGDClassifier), ("logistic", LogisticRegression)])
def test_in_coordinates_of_the_examples_span_the_classifier_is_the_same(classifier, peer):
    rng = np.random.default_rng(1)
    positive, negative = np.maximum(rng.normal(size=(2, 30, 500)), 0)
    vector, accuracy = concept_vector(positive, negative, classifier, 7)
    twin = np.random.default_rng(7)
    sides = [side[twin.permutation(30)] for side in (positive, negative)]
    x, y = np.concatenate([side[:20] for side in sides]), np.repeat([1, 0], 20)
    settings = dict(alpha=0.01, tol=1e-3, random_state=7) if classifier == "sgd" else {}
    found = peer(max_iter=1000, **settings).fit(x, y)
    # the same steps up to rounding; the quasi-Newton solver of the logistic loss stops at 1e-4
    assert vector @ found.coef_[0] / np.linalg.norm(found.coef_) > 1 - (1e-12 if classifier == "sgd" else 1e-3)
    held = np.concatenate([side[20:] for side in sides])
    assert accuracy == (found.predict(held) == np.repeat([1, 0], 10)).mean()


def test_a_concept_that_the_network_uses_is_found_and_one_that_it_does_not_use_is_not():
    net = nn.Sequential(nn.Linear(6, 12, bias=False), nn.ReLU(), nn.Linear(12, 2, bias=False))
    # units +-x_i in pairs; the logit of class 1 grows with x_0, class 0's with x_1, more where x_2 is positive
    net[0].weight.data = torch.cat([torch.eye(6), -torch.eye(6)])
    net[2].weight.data.zero_()
    net[2].weight.data[1, 0], net[2].weight.data[1, 6] = 1, -1
    net[2].weight.data[0, 1] = 1
    used, unused = draws(1, 50, seed=3, shift=3)[0], draws(1, 50, seed=4)[0]
    found = tcav(
        net, "1", {"used": used, "unused": unused}, draws(60, 50, seed=5), draws(1, 50, seed=6)[0], 1, generator=0
    )
    assert found["used"].significant and found["used"].score == 1 and found["used"].p_random_means == 1 / 41
    assert found["used"].cav_accuracy.mean() > 0.9
    assert not found["unused"].significant and found["unused"].p_random_means > 0.05


def test_fake_concepts_pass_the_rank_test_at_its_level_and_welchs_far_too_often():
    fakes = {str(i): x for i, x in enumerate(draws(40, 20, seed=11))}
    found = small(
        model=network(), layer="1", concept_x=fakes, random_sets=draws(60, 20, seed=12),
        class_x=draws(1, 60, seed=13)[0], target=1, runs=30, generator=0,
    )  # fmt: skip
    share = np.mean([each.p_random_means < 0.05 for each in found.values()])
    assert share < 0.18  # 1/31 +- 0.028 by drawing 40 concepts, and as much again by drawing 30 pseudo-concepts
    assert np.mean([each.p_welch < 0.05 for each in found.values()]) > 0.2
    assert not any(each.significant for each in found.values())  # held to alpha / 40, which 31 ranks cannot reach


def test_the_rank_of_an_exchangeable_mean_is_uniform():
    rng = np.random.default_rng(0)
    draws_ = torch.from_numpy(rng.exponential(size=(4000, 41)))
    p = np.array([rank_p(row[0], row[1:]) for row in draws_])
    # p takes the values k/41; binomial error of a share near 0.05 from 4000 draws is 0.0034
    assert abs((p < 0.05).mean() - 2 / 41) < 0.012
    assert abs(p.mean() - 0.5) < 0.03


def test_constant_scores_have_a_p_value():
    ones = torch.ones(5).double()
    assert welch_p(ones, ones) == 1 and welch_p(ones, 0 * ones) == 0
    assert 0 < welch_p(torch.tensor([0.1, 0.2, 0.3]).double(), torch.tensor([0.2, 0.2, 0.2]).double()) <= 1


def test_channel_means_move_all_places_alike():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 6), nn.Tanh(), nn.Linear(6, 2))
    net = net.double().eval()
    sets, x = torch.randn(12, 20, 2, 6, 6), torch.randn(15, 2, 6, 6).double()
    asked = dict(
        model=net, layer="1", concept_x=sets[0] + 1, random_sets=sets, class_x=x, target=0, runs=6, generator=0
    )
    result = small(**asked, channel_means=True)
    assert result.cavs.shape == (6, 5) and small(**asked).cavs.shape == (6, 80)
    inner, move = net[:2](x), 1e-4 * result.cavs[0][:, None, None]
    rises = net[2:](inner + move)[:, 0] > net[2:](inner - move)[:, 0]
    assert rises.double().mean() == result.scores[0]


def test_a_seed_gives_the_same_bits_and_the_model_is_left_alone():
    net = network().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    one, same, other = (small(model=net, layer="1", target=0, generator=seed, **ASKED) for seed in (3, 3, 4))
    assert torch.equal(one.cavs, same.cavs) and not torch.equal(one.cavs, other.cavs)
    assert net.training and all(p.grad is None for p in net.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_dead_inputs_count_as_not_positive_and_are_warned_about():
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))
    net[2].weight.data.zero_()
    with pytest.warns(UserWarning, match="no gradient in this layer at 100%"):
        result = tcav(net, "0", ASKED["concept_x"], draws(60), ASKED["class_x"], generator=0)
    assert torch.equal(result.scores, torch.zeros(20).double())


def test_bad_input_is_named():
    net = network()
    for wrong, said in (
        (dict(random_sets=draws(9)), "8 runs need 8 random sets"),
        (dict(runs=1), "at least 2"),
        (dict(test="t"), "'t'"),
        (dict(classifier="svm"), "'svm'"),
        (dict(concept_x={"red": ASKED["concept_x"][:1]}), "red has 1 examples"),
        (dict(concept_x={}), "0 concepts"),
        (dict(layer="9"), "no layer '9'"),
        (dict(target=7), "class 7"),
    ):
        with pytest.raises(InputError, match=said):
            small(**{**dict(model=net, layer="1", target=0), **ASKED, **wrong})
    with pytest.warns(UserWarning, match="8 runs .*12 pseudo-concepts"):
        tcav(net, "1", target=0, **ASKED)
