import copy
import importlib
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import data, kernels, train
from phenoscope.core.errors import InputError
from phenoscope.core.parameters import parameter_dict
from phenoscope.prune import Ticket, ntt, one_shot

module = importlib.import_module("phenoscope.prune.ntt")


def net(seed=0, sizes=(64, 24, 16, 4)):
    torch.manual_seed(seed)
    layers = [nn.Flatten()]
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight)
    return nn.Sequential(*layers[:-1])


@pytest.fixture(scope="module")
def x():
    return data.digits(train=600).train[0]


def explicit_kernel(model, masks, x1, x2):
    """J J^T row by row with torch.autograd, pruned coordinates multiplied by their mask."""

    def rows(x):
        found = []
        for one in x:
            for output in model(one[None])[0]:
                model.zero_grad()
                output.backward(retain_graph=True)
                found.append(
                    torch.cat([(p.grad * masks.get(name, 1)).flatten() for name, p in model.named_parameters()])
                )
        return torch.stack(found).reshape(len(x), -1, sum(p.numel() for p in model.parameters()))

    return torch.einsum("iap,jbp->ijab", rows(x1), rows(x2))


def test_the_students_kernel_is_the_product_of_autograds_masked_jacobians(x):
    student = net().double()
    masks = one_shot(student, density=0.2, scope="layer")
    masks.apply_(student)
    x1, x2 = x[:3].double(), x[3:5].double()
    kept = {name: mask.flatten().nonzero()[:, 0] for name, mask in masks.items()}
    jacobians = [module._jacobians(student, parameter_dict(student), kept, each, None) for each in (x1, x2)]
    expected = explicit_kernel(student, masks, x1, x2)
    torch.testing.assert_close(module._kernel(*jacobians), expected, rtol=1e-10, atol=1e-12)
    whole = explicit_kernel(student, {}, x1, x2)  # without the mask it is another kernel
    torch.testing.assert_close(kernels.empirical_ntk(student, x1, x2), whole, rtol=1e-10, atol=1e-12)
    assert float((whole - expected).abs().max()) > 0.1


def test_the_kernels_distance_has_the_gradient_of_finite_differences():
    teacher = net(sizes=(5, 4, 2)).double()
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.1)  # away from the kinks
    masks = one_shot(teacher, density=0.5, scope="layer")
    inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).double()
    names, start = zip(*parameter_dict(copy.deepcopy(teacher)).items(), strict=True)

    def distance(*values):
        student = {n: 1.1 * v * masks[n] if n in masks else v for n, v in zip(names, values, strict=True)}
        return module._distance(teacher, student, masks, *inputs.chunk(2), None)

    assert torch.autograd.gradcheck(distance, tuple(value.clone().requires_grad_() for value in start))


def test_at_density_one_nothing_is_left_to_match(x):
    model = net().double()
    ticket = ntt(model, x, density=1.0, steps=1, batch_size=16, lam_l2=1e-3, generator=0)
    first = ticket.history.isel(step=0)
    norm = sum(float(p.detach().square().sum()) for p in model.parameters() if p.ndim == 2)
    assert float(first.output_distance) < 1e-25 and float(first.kernel_distance) < 1e-18  # two ways to compute it
    np.testing.assert_allclose(float(first.loss), 1e-3 * norm, rtol=1e-12)


def test_the_first_loss_is_that_of_its_formula(x):
    model = net().double()
    ticket = ntt(model, x, density=0.25, steps=1, batch_size=8, lam_kernel=0.01, lam_l2=1e-3, generator=3)
    first = ticket.history.isel(step=0)
    norm = sum(float((p * m).square().sum()) for p, m in _largest(model, 0.25))
    expected = float(first.output_distance) + 0.01 * float(first.kernel_distance) + 1e-3 / 0.25 * norm
    np.testing.assert_allclose(float(first.loss), expected, rtol=1e-12)


def _largest(model, density):
    masks = one_shot(model, density=density, scope="layer")
    return [(dict(model.named_parameters())[name].detach(), mask) for name, mask in masks.items()]


def test_labels_change_nothing(x):
    y = torch.arange(len(x)) % 4
    settings = dict(density=0.2, steps=6, batch_size=16, update_every=2, generator=1)
    tickets = [ntt(net(), each, **settings) for each in (x, (x, y), (x, y.flip(0)))]
    for other in tickets[1:]:
        assert other.masks == tickets[0].masks
        assert all(torch.equal(other.init_state[name], value) for name, value in tickets[0].init_state.items())


@pytest.fixture(scope="module")
def transferred(x):
    settings = dict(density=0.15, steps=150, batch_size=16, lr=3e-3, update_every=40, generator=2)
    return {lam: ntt(net(), x[:400], lam_kernel=lam, **settings) for lam in (1e-2, 0.0)}


def test_both_distances_fall_on_unseen_inputs(transferred, x):
    model, unseen = net(), x[400:460]
    start = one_shot(model, density=0.15, scope="layer")
    before = module.distances(model, start.apply_(copy.deepcopy(model)), start, unseen)
    ticket = transferred[1e-2]
    after = module.distances(model, ticket.network(model), ticket.masks, unseen)
    assert after[0] < 0.8 * before[0] and after[1] < 0.8 * before[1]


def test_without_the_kernels_term_the_kernel_stays_farther(transferred, x):
    # the trap: matching outputs alone
    model = net()
    with_it, without = (
        module.distances(model, each.network(model), each.masks, x[400:460])[0] for each in transferred.values()
    )
    assert with_it < without


def test_a_ticket_keeps_its_share_of_every_layer_and_chooses_it_anew(transferred):
    ticket, model = transferred[1e-2], net()
    assert isinstance(ticket, Ticket)
    assert ticket.masks.counts == {name: round(0.15 * mask.numel()) for name, mask in ticket.masks.items()}
    assert ticket.masks != one_shot(model, density=0.15, scope="layer")
    assert all(not ticket.init_state[name][~mask].any() for name, mask in ticket.masks.items())
    assert list(ticket.history.step.values[[0, -1]]) == [1, 150]


def test_the_mask_is_fixed_in_the_last_steps(x):
    settings = dict(density=0.15, batch_size=16, lr=1e-2, generator=2)
    first = one_shot(net(), density=0.15, scope="layer")
    assert ntt(net(), x, steps=19, update_every=10, **settings).masks == first
    assert ntt(net(), x, steps=20, update_every=10, **settings).masks != first


def test_globally_layers_share_the_weights(x):
    ticket = ntt(net(), x, density=0.1, steps=1, scope="global", generator=0)
    assert sum(ticket.masks.counts.values()) == round(0.1 * (64 * 24 + 24 * 16 + 64))
    assert ticket.masks == one_shot(net(), density=0.1)


def test_derivatives_by_pruned_weights_count_only_if_asked_for(x):
    model = net().double()
    settings = dict(density=0.2, steps=1, batch_size=8, generator=0)
    seen = [ntt(model, x, masked_jacobian=each, **settings).history.kernel_distance.values[0] for each in (True, False)]
    student = one_shot(model, density=0.2, scope="layer").apply_(copy.deepcopy(model))
    batch = next(module._halves(x, 8, model, module.child_seeds(0, 2)[0], 1))
    a, b = batch.chunk(2)
    whole = (kernels.empirical_ntk(student, a, b) - kernels.empirical_ntk(model, a, b)).square().mean()
    np.testing.assert_allclose(seen[1], float(whole), rtol=1e-9)
    assert abs(seen[0] / seen[1] - 1) > 0.05


def test_a_combination_of_outputs_has_the_contracted_kernel(x):
    model = net().double()
    x1, x2 = x[:2].double(), x[2:5].double()
    by = torch.tensor([1.0, -1, -1, 1]).double()
    parts = [module._jacobians(model, parameter_dict(model), {}, each, by) for each in (x1, x2)]
    full = kernels.empirical_ntk(model, x1, x2)
    torch.testing.assert_close(module._kernel(*parts)[..., 0, 0], torch.einsum("ijab,a,b->ij", full, by, by))
    for outputs in ("sum", "random"):
        history = ntt(model, x, density=0.3, steps=2, outputs=outputs, generator=0).history
        assert np.isfinite(history.loss).all() and float(history.kernel_distance[0]) > 0


def test_the_network_is_left_as_it_was_and_the_ticket_trains():
    split = data.digits(train=300)
    model = net(sizes=(64, 32, 10)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ticket = ntt(model, split.train, density=0.3, steps=5, batch_size=16, generator=0)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    network = ticket.network(model)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    train.fit(network, split.train, steps=80, optimizer=optimizer, masks=ticket.masks, generator=0)
    assert train.accuracy(network, split.test) > 0.7


def test_convolutions_and_loaders_of_inputs_work(x):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    loader = torch.utils.data.DataLoader(x[:21], batch_size=7)
    ticket = ntt(model, loader, density=0.5, steps=4, generator=0)  # 7 is odd: six of each batch count
    assert list(ticket.masks) == ["0.weight", "4.weight"] and ticket.masks.density == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(density=0.0), "above 0"),
        (dict(steps=0), "at least one step"),
        (dict(batch_size=1), "two examples"),
        (dict(outputs="all"), "outputs must be"),
    ],
)
def test_wrong_settings_are_refused(changes, said, x):
    with pytest.raises(InputError, match=said):
        ntt(net(), x, **dict(density=0.5, steps=1) | changes)


def test_data_without_pairs_are_refused(x):
    with pytest.raises(InputError, match="no batch of two"):
        ntt(net(), x[:1], density=0.5, steps=1)
