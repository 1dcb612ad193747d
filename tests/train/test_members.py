"""What a fleet can do besides training; what it refuses."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from phenoscope import data
from phenoscope.core.errors import InputError
from phenoscope.train import Fleet, States, accuracy, build, cosine, fleet, outputs, stacked
from phenoscope.train.program import Program

SPLIT = data.digits(train=200)
X, Y = SPLIT.train
SGD = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


def networks(n=3):
    return [build(mlp, generator=seed) for seed in range(n)]


def test_a_member_is_a_network_of_its_own():
    trained = fleet(networks(), SPLIT.train, steps=3, optimizer=SGD, generator=0)
    before = trained.parameters["1.weight"].clone()
    member = trained[1]
    assert type(member) is nn.Sequential and member.training
    assert member[1].weight.requires_grad and member[1].weight.is_leaf
    with torch.no_grad():
        member[1].weight.zero_()
    assert torch.equal(trained.parameters["1.weight"], before)
    assert torch.equal(trained[-1][1].weight, before[2]) and len(list(trained)) == len(trained) == 3
    with pytest.raises(IndexError, match="no member 3"):
        trained[3]


def test_given_networks_and_fleets_are_left_as_they_are():
    given = networks()
    states = [{name: value.clone() for name, value in network.state_dict().items()} for network in given]
    first = fleet(given, SPLIT.train, steps=4, optimizer=SGD, generator=0, states=States(at=2))
    second = fleet(first, SPLIT.train, steps=4, optimizer=SGD, generator=1)
    for network, state in zip(given, states, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not torch.equal(first.parameters["1.weight"], second.parameters["1.weight"])
    assert first.history.sizes == {"step": 4, "member": 3}
    start = first.at(0)
    for index, state in enumerate(states):
        assert all(torch.equal(value, state[name]) for name, value in start[index].state_dict().items())
    again = fleet(start, SPLIT.train, steps=4, optimizer=SGD, generator=0)
    assert torch.equal(again.parameters["4.bias"], first.parameters["4.bias"])
    with pytest.raises(InputError, match="no states of step 3"):
        first.at(3)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 7), st.integers(1, 9))
def test_outputs_and_accuracy_are_those_of_the_members(members, n, batch_size):
    trained = Fleet.of(networks(members))
    x, y = SPLIT.test[0][:n], SPLIT.test[1][:n]
    own = torch.stack([x.roll(index, 0) for index in range(members)])
    together, apart = trained.outputs(x, batch_size=batch_size), trained.outputs(own, stacked=True)
    assert together.shape == apart.shape == (members, n, 10)
    for index, network in enumerate(trained):
        assert torch.allclose(together[index], outputs(network, x), atol=1e-5)  # sums in another order
        assert torch.allclose(apart[index], outputs(network, own[index]), atol=1e-5)
    expected = [accuracy(network, (x, y)) for network in trained]
    assert trained.accuracy((x, y)).tolist() == expected
    assert trained.accuracy([(x, y)] * members).tolist() == expected
    assert trained.accuracy((x, y.expand(members, n))).tolist() == expected
    assert trained.map(lambda network: accuracy(network, (x, y))).tolist() == expected


def test_map_shows_every_member_in_evaluation_mode_and_keeps_copies():
    trained = Fleet.of(networks())
    assert trained.map(lambda network: network.training).tolist() == [False] * 3
    weights = trained.map(lambda network: network[1].weight)
    assert weights.dtype == torch.float64 and weights.shape == (3, 16, 64)
    assert all(torch.equal(weights[i], network[1].weight.double()) for i, network in enumerate(trained))
    with pytest.raises(InputError, match="different shapes"):
        trained.map(lambda network: torch.zeros(int(network[1].weight[0, 0] > trained.parameters["1.weight"][0, 0, 0])))


def test_running_statistics_and_counters_belong_to_each_member():
    trained = fleet(networks(), SPLIT.train, steps=5, optimizer=SGD, generator=0)
    assert trained.buffers["2.num_batches_tracked"].tolist() == [5, 5, 5]
    means = trained.buffers["2.running_mean"]
    assert not torch.allclose(means[0], means[1])
    trained.outputs(X)
    assert torch.equal(trained.buffers["2.running_mean"], means)  # looking changes nothing
    assert set(trained.state_dict()) == set(mlp().state_dict())


def test_a_fleet_for_which_memory_runs_out_is_halved_and_goes_on(monkeypatch):
    whole = fleet(networks(5), SPLIT.train, steps=6, optimizer=SGD, generator=0)
    sizes, losses = [], Program.losses

    def tight(self, tensors, x, y, loss_fn):
        found = losses(self, tensors, x, y, loss_fn)  # memory runs out after running statistics have changed
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    monkeypatch.setattr(Program, "losses", tight)
    halved = fleet(networks(5), SPLIT.train, steps=6, optimizer=SGD, generator=0)
    assert sizes.count(5) == 1 and set(sizes) == {1, 2, 3, 5}  # halved for good
    for own, other in ((whole.parameters, halved.parameters), (whole.buffers, halved.buffers)):
        assert all(torch.allclose(own[name].double(), other[name].double(), atol=1e-5) for name in own)
    monkeypatch.setattr(Program, "losses", lambda *args: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(torch.OutOfMemoryError):  # one member alone is too much
        fleet(networks(2), SPLIT.train, steps=1, optimizer=SGD)


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1, "groups": 2}, {"dilation": 2, "bias": False}])
def test_convolutions_one_by_one_and_as_groups_of_one_are_the_same(settings, monkeypatch):
    given = [nn.Sequential(nn.Conv2d(4, 6, 3, **settings), nn.Flatten(), nn.LazyLinear(10)) for _ in range(3)]
    x = torch.randn(12, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for network in given:
        network(x)
    found = []
    for limit in (0, 10**12):
        monkeypatch.setattr(stacked, "_LARGE_CONVOLUTION", limit)
        found.append(fleet(given, (x, Y[:12]), steps=3, optimizer=SGD, generator=0).outputs(x))
    assert torch.allclose(*found, atol=1e-5)  # sums in another order


def test_hooks_of_a_network_run_in_a_fleet_too():
    def doubled():
        network = build(mlp, generator=0)
        network[1].register_forward_hook(lambda module, inputs, output: 2 * output)
        return network

    given = [doubled(), doubled()]
    trained = Fleet.of(given)
    assert torch.allclose(trained.outputs(X)[1], outputs(given[1], X), atol=1e-5)


def test_progress_is_told_the_last_step_and_data_may_be_a_loader():
    calls = []
    loader = DataLoader(TensorDataset(X, Y), batch_size=30)
    trained = fleet(
        mlp, loader, members=2, epochs=2, optimizer=SGD, generator=0, progress=lambda *call: calls.append(call)
    )
    assert calls[-1] == (8, 8, pytest.approx(trained.history.loss[-1].mean().item()))
    assert torch.equal(
        fleet(mlp, (X, Y), members=2, epochs=2, optimizer=SGD, generator=0).parameters["4.bias"],
        trained.parameters["4.bias"],
    )


def test_a_factory_is_told_the_shape_and_the_classes_of_the_data():
    def named(shape, num_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], num_classes))

    trained = fleet(named, SPLIT.train, members=1, steps=1, optimizer=SGD, generator=0)
    assert trained.parameters["1.weight"].shape == (1, 10, 64)
    trained = fleet(named, SPLIT.train, members=1, steps=1, optimizer=SGD, generator=0, num_classes=12)
    assert trained.parameters["1.weight"].shape == (1, 12, 64)


REFUSED = {
    "say how many": {},
    "members says 2 members, generator says 3": {"members": 2, "generator": [0, 1, 2]},
    "at least 1 member": {"members": 0},
    "lr has shape": {"members": 3, "lr": [0.1, 0.2]},
    "2 masks for 3 members": {"members": 3, "masks": [None, None]},
    "labels have shape": {"members": 3, "labels": torch.zeros(2, 200, dtype=torch.long)},
    "rows run from 0 to 200": {"members": 1, "rows": torch.tensor([[0, 200]])},
    "rows are": {"members": 2, "rows": torch.tensor([[0, 1]])},
    "function of the step": {"members": 1, "schedule": 3},
    "what makes one": {"members": 1, "optimizer": torch.optim.SGD(mlp().parameters(), lr=0.1)},
    "not Adagrad": {"members": 1, "optimizer": functools.partial(torch.optim.Adagrad, lr=0.1)},
    "amsgrad=True": {"members": 1, "optimizer": functools.partial(torch.optim.Adam, amsgrad=True)},
    "not both": {"members": 1, "epochs": 1},
    "at least 1 example": {"members": 1, "batch_size": 0},
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_settings_are_named(message):
    with pytest.raises(InputError, match=message):
        fleet(mlp, SPLIT.train, **({"steps": 1, "optimizer": SGD} | REFUSED[message]))


def test_bad_networks_and_data_are_named():
    train = functools.partial(fleet, steps=1, optimizer=SGD, schedule=cosine(3))
    with pytest.raises(InputError, match="not one network"):
        train(mlp(), SPLIT.train)
    with pytest.raises(InputError, match=r"network 1 is not like network 0: '1\.weight'"):
        train([mlp(), nn.Sequential(nn.Flatten(), nn.Linear(3, 4))], SPLIT.train)
    with pytest.raises(InputError, match="no parameters"):
        train([nn.ReLU()], SPLIT.train)
    with pytest.raises(InputError, match="2 pairs of data for 3 members"):
        train(networks(), [(X, Y), (X, Y)])
    with pytest.raises(InputError, match="data of member 1"):
        train(networks(2), [(X, Y), (X[:5], Y[:5])])
    with pytest.raises(InputError, match="NaN"):
        train(networks(), (X * torch.nan, Y))
    trained = Fleet.of(networks())
    with pytest.raises(InputError, match="first axis must be 3"):
        trained.outputs(X, stacked=True)
    with pytest.raises(InputError, match="labels have shape"):
        trained.accuracy((X, Y[:, None]))
    with pytest.raises(InputError, match="one for each of 3"):
        trained.accuracy([(X, Y)])


@pytest.mark.parametrize("members", [1, 5, 40])
def test_threads_change_no_bits_and_are_given_back(members):
    given = networks(members)
    torch.set_num_threads(2)
    many = fleet(given, SPLIT.train, steps=20, optimizer=SGD, generator=0)
    again = fleet(given, SPLIT.train, steps=20, optimizer=SGD, generator=0)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    one = fleet(given, SPLIT.train, steps=20, optimizer=SGD, generator=0)
    for name, value in one.state_dict().items():
        assert torch.equal(many.state_dict()[name], again.state_dict()[name])
        assert torch.allclose(many.state_dict()[name].double(), value.double(), atol=1e-4)  # parts of another size
