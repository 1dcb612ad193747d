"""The example runs as it stands, freezes what the schedule says, and measures every way."""

import importlib.util
from pathlib import Path

import pytest
import torch

from phenoscope.data import digits
from phenoscope.record import open_run


@pytest.fixture
def example():
    file = Path(__file__).parents[2] / "examples" / "freeze_settled.py"
    spec = importlib.util.spec_from_file_location("freeze_settled", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_records_and_measures_all_four_ways(example, tmp_path, capsys):
    found = example.main(["--epochs", "3", "--seeds", "2", "--threshold", "0.6", "--output", str(tmp_path / "run")])
    out = capsys.readouterr().out
    assert list(found) == ["all", "each settled", "in order", "stopped"] and "time saved" in out
    assert len(open_run(tmp_path / "run").steps) == 3 * (1400 // 64) // 10
    for results in found.values():
        assert len(results) == 2 and all(spent > 0 and 0.2 < right <= 1 for spent, right in results)  # chance is 0.1


def test_a_schedule_freezes_at_its_update_and_training_ends_when_nothing_is_left(example):
    train = digits(generator=0).train
    names = [name for name, _ in example.network(3).named_parameters()]

    def trained(**settings):
        model = example.network(3)
        example.fit(model, train, updates=12, seed=3, **settings)
        return dict(model.named_parameters())

    early, frozen, done = trained(stop=5), trained(schedule={5: ["conv1.weight"]}), trained(schedule={5: names})
    assert torch.equal(frozen["conv1.weight"], early["conv1.weight"])
    assert not torch.equal(frozen["conv2.weight"], early["conv2.weight"])
    assert all(torch.equal(done[name], early[name]) for name in names)
