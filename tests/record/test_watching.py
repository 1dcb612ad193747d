"""Observers beside a recorder: what they see is kept and gone on with, and training does not notice them."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from phenoscope import Recorder, open_run
from phenoscope.core.errors import InputError
from phenoscope.train import Watch, fit


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))


X = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(32) % 3
MEASURES = {
    "norm": lambda model: model[0].weight.norm(),
    "outputs": lambda model: model(X[:2]),
    "layers": lambda model: len(model),
}


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(X), Y).backward()
        optimizer.step()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def watched(path, at, steps=11, observers=MEASURES, **settings):
    model = network()
    optimizer = sgd(model)
    with Recorder(model, path, optimizer=optimizer, every=4, watch=Watch(observers, at=at), **settings):
        train(model, optimizer, steps)
    return open_run(path).watched


@pytest.mark.parametrize("at", [3, (0, 2, 7)])
def test_a_recorder_sees_what_fit_sees(tmp_path, at):
    """Bit by bit: the same network, batches and steps."""
    found = watched(tmp_path / "run", at)
    model = network()
    watch = Watch(MEASURES, at=at)
    expected = fit(model, (X, Y), steps=11, optimizer=sgd(model), batch_size=None, watch=watch, generator=0).watched
    assert found["step"].values.tolist() == ([0, 3, 6, 9, 11] if at == 3 else [0, 2, 7])
    assert set(found) == set(expected)
    for name in expected:
        assert found[name].dims == expected[name].dims
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert found["outputs"].shape[1:] == (2, 3) and (found["layers"] == 5).all()


def test_training_is_bitwise_the_same_with_and_without_observers(tmp_path):
    def meddles(model):
        assert not model.training and not torch.is_grad_enabled()
        torch.rand(3)
        model.train()
        model(X)  # changes the running means of the norm
        with torch.enable_grad():
            model(X).sum().backward()
        return 1.0

    states = []
    for observers in (None, {"meddles": meddles, "mode": lambda model: not model.training, **MEASURES}):
        model = network()
        model[1].eval()  # frozen by its owner
        optimizer = sgd(model)
        watch = None if observers is None else Watch(observers, at=1)
        with Recorder(model, tmp_path / str(len(states)), optimizer=optimizer, every=4, watch=watch):
            train(model, optimizer, 6)
        assert not model[1].training and model[3].training
        states.append({**model.state_dict(), "random": torch.get_rng_state()})
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    seen = open_run(tmp_path / "1").watched
    assert (seen["meddles"] == 1).all() and seen["mode"].all(), "each observer finds the network as it should be"


def test_an_observer_that_fails_is_said_once_and_the_others_go_on(tmp_path):
    calls = []

    def fails(model):
        calls.append(1)
        if len(calls) == 3:
            raise ValueError("no more")
        return True

    grows = {"grows": lambda model: torch.zeros(1 + len(calls) // 2)}
    with pytest.warns(RuntimeWarning) as caught:
        found = watched(tmp_path / "run", 2, observers={"fails": fails, **grows, "text": lambda m: "a", **MEASURES})
    said = [str(each.message) for each in caught]
    assert len(said) == 3
    assert "'text' failed at update 0" in said[0] and "give a number or a tensor" in said[0]
    assert "'grows' failed at update 2" in said[1] and "shape (2,), and (1,) before" in said[1]
    assert "'fails' failed at update 4 and is left out" in said[2] and "no more" in said[2]
    assert found["step"].values.tolist() == [0, 2, 4, 6, 8, 10, 11] and len(calls) == 3
    np.testing.assert_array_equal(found["fails"], [1, 1, *[np.nan] * 5])
    assert np.isfinite(found["norm"]).all() and "text" not in found
    assert len(open_run(tmp_path / "run").steps) == 2, "the records go on as well"


def test_a_resumed_run_goes_on_with_its_looks_and_drops_those_made_again(tmp_path):
    model = network()
    optimizer = sgd(model)
    settings = {"optimizer": optimizer, "every": 1, "watch": Watch({"norm": MEASURES["norm"]}, at=2)}
    with Recorder(model, tmp_path / "run", **settings):
        train(model, optimizer, 9)
    first = open_run(tmp_path / "run").watched
    with Recorder(model, tmp_path / "run", resume=True, step=6, **settings):
        train(model, optimizer, 3)
    found = open_run(tmp_path / "run").watched
    assert first["step"].values.tolist() == found["step"].values.tolist() == [0, 2, 4, 6, 8, 9]
    np.testing.assert_array_equal(found["norm"][:4], first["norm"][:4])
    assert (found["norm"][4:].values != first["norm"][4:].values).all()
    other = Watch({"norm": lambda model: model[0].weight.norm(dim=1), "new": lambda model: 7}, at=1)
    with (
        pytest.warns(RuntimeWarning, match=r"'norm' failed at update 10 .* shape \(6,\), and \(\) before"),
        Recorder(model, tmp_path / "run", **{**settings, "watch": other}, resume=True, step=9),
    ):
        train(model, optimizer, 2)
    found = open_run(tmp_path / "run").watched
    assert found["step"].values.tolist() == [0, 2, 4, 6, 8, 9, 10, 11]
    assert np.isfinite(found["norm"]).values.tolist() == [True] * 6 + [False] * 2
    assert found["new"].values[-2:].tolist() == [7, 7] and np.isnan(found["new"].values[:-2]).all()


def test_looks_are_read_while_they_are_made_and_a_torn_end_does_not_count(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    watch = Watch({"norm": lambda model: model[0].weight.norm()}, at=1)
    recorder = Recorder(model, tmp_path / "run", every=10, threshold=0.1, watch=watch)
    for _ in range(5):
        recorder.step()
    recorder._target.flush()
    assert open_run(tmp_path / "run").watched["step"].values.tolist() == list(range(6))
    recorder.step()
    recorder.abandon()
    file = tmp_path / "run" / "watched.bin"
    file.write_bytes(file.read_bytes()[:-5])  # a kill while it was written
    assert open_run(tmp_path / "run").watched["step"].values.tolist() == list(range(6))
    with Recorder(model, tmp_path / "run", every=10, threshold=0.1, resume=True, step=5, watch=watch) as recorder:
        recorder.step()
    assert open_run(tmp_path / "run").watched["step"].values.tolist() == list(range(7))
    Recorder(model, tmp_path / "run", threshold=0.1, overwrite=True).close()
    assert not open_run(tmp_path / "run").watched.sizes, "a run that is replaced takes its looks along"


def test_an_interrupted_training_asks_nobody_any_more(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    watch = Watch({"one": lambda model: 1}, at=5)
    with pytest.raises(KeyboardInterrupt), Recorder(model, tmp_path, every=1, threshold=0.1, watch=watch) as recorder:
        recorder.step()
        raise KeyboardInterrupt
    assert open_run(tmp_path).watched["step"].values.tolist() == [0]


def test_a_lazy_network_is_first_looked_at_when_it_has_weights(tmp_path):
    model = nn.Sequential(nn.LazyLinear(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch({"norm": lambda model: model[0].weight.norm()}, at=1)
    with Recorder(model, tmp_path / "run", optimizer=optimizer, every=1, watch=watch):
        train(model, optimizer, 2)
    assert open_run(tmp_path / "run").watched["step"].values.tolist() == [1, 2]


def test_something_else_than_a_watch_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"watch must be a train\.Watch of observers, not dict"):
        Recorder(network(), tmp_path / "run", threshold=0.1, watch={"norm": MEASURES["norm"]})
