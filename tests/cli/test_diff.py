"""`phenoscope diff`: what it prints and leaves, and how wrong input ends."""

import json

import pytest
import torch
from torch import nn

from phenoscope import Recorder
from phenoscope.cli.app import run


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs of one network and one of another, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, stop, size in [("a", 5, 3), ("b", 20, 3), ("other", 5, 4)]:
        model = nn.Sequential(nn.Linear(4, size), nn.Linear(size, 2))
        with Recorder(model, name, every=1, threshold=0.05) as recorder, torch.no_grad():
            for update in range(1, 31):
                model[0].weight[0].add_(0.1 * (update <= stop))
                recorder.step()
    return tmp_path


def test_a_table_and_a_page(runs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert run(["diff", "a", "b"]) == 0
    out = capsys.readouterr().out
    assert "5 | 20" in out and "a | b, up to step 30" in out and "diff/index.html" in out
    assert (runs / "diff" / "index.html").is_file() and (runs / "diff" / "plotly.min.js").is_file()


def test_json_gives_every_number_and_null_for_what_is_missing(runs, capsys):
    assert run(["diff", "a", "b", "--json", "-o", "page", "--threshold", "0.1"]) == 0
    facts = json.loads(capsys.readouterr().out)
    first, second = facts["layers"]
    assert first["settled"] == [5, 20] and first["changed"] == pytest.approx([5 / 90, 20 / 90])
    assert second["likeness"] is None and second["changed"] == [0, 0]
    assert facts["page"] == "page/index.html" and facts["until"] == 30 and facts["remarks"] == []


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["a", "other"], "shape (3, 4)"),
        (["a", "nothing"], "holds no run"),
        (["a", "b", "--window", "4"], "odd number"),
        (["a"], "RUN"),
    ],
)
def test_wrong_input_ends_with_one_line_and_status_2(runs, capsys, arguments, message):
    assert run(["diff", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
