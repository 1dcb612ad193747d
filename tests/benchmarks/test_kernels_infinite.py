"""The benchmark of infinite networks: it measures what it says, and stops where kernels differ."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "kernels_infinite.py"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(FILE.parent))
    return runpy.run_path(str(FILE))


def test_this_library_alone_is_timed_where_the_package_is_absent(bench, monkeypatch, capsys):
    monkeypatch.setitem(bench["main"].__globals__, "PEER", Path("nowhere"))
    bench["main"](["--small", "--rounds", "2", "--threads", "1", "--cases", "mlp", "--dtypes", "float32", "--json"])
    out, error = capsys.readouterr()
    (row,) = json.loads(out)["rows"]
    assert "this library alone" in error and list(row["MiB"]) == [bench["OURS"]]
    for kind in bench["KINDS"]:
        assert row[kind]["seconds"][bench["OURS"]] > 0 and row[kind]["ratio"] == {}


def test_the_difference_is_the_larger_of_both_kernels_relative_to_the_others_norm(bench):
    one = {"nngp": np.eye(2), "ntk": 2 * np.eye(2)}
    other = {"nngp": np.eye(2), "ntk": 1.6 * np.eye(2)}
    assert bench["difference"](one, other) == pytest.approx(0.25)


def test_inputs_are_those_that_the_cases_name(bench):
    assert bench["inputs"]("mlp", False).shape == (2000, 64) and bench["inputs"]("cnn", False).shape == (64, 16, 16, 3)
    rows = bench["inputs"]("mlp", False)
    assert len(np.unique(rows, axis=0)) == 2000
