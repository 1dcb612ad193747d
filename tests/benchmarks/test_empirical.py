"""The benchmark of the empirical section compares two ways to the same networks, and notices if they are not."""

import dataclasses
import json
import runpy
from pathlib import Path

import pytest

from phenoscope.lab.map import Lab

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def empirical():
    return runpy.run_path(str(ROOT / "benchmarks" / "empirical.py"))


@pytest.mark.parametrize("name", ["double-descent", "lottery-ticket", "generalization-measures"])
def test_the_loop_and_the_fleet_make_the_same_networks_of_a_study(empirical, name):
    case = dataclasses.replace(next(empirical["STUDIES"][name](Lab(0))), timed=6)
    row = empirical["measured"](case, "cpu", 1)
    assert row["difference"] < 1e-4  # measured below 1e-6
    for kind in empirical["KINDS"]:
        assert row[kind]["ratio"] == pytest.approx(row[kind]["loop"] / row[kind]["fleet"])


def test_a_loop_that_trains_something_else_is_noticed(empirical):
    case = dataclasses.replace(next(empirical["STUDIES"]["lottery-ticket"](Lab(0))), timed=6)
    with pytest.raises(SystemExit, match="other networks"):
        empirical["measured"](dataclasses.replace(case, masks=None), "cpu", 1)


def test_a_study_is_the_sum_of_its_cases(empirical, capsys):
    arguments = ["--studies", "double-descent", "--cases", "width 8", "width 16", "--rounds", "1"]
    found = empirical["main"]([*arguments, "--json"])
    assert json.loads(capsys.readouterr().out) == found
    rows = [row for row in found["rows"] if row["case"] in ("width 8", "width 16")]
    assert [row["members"] for row in rows] == [20, 20]
    whole = sum(1e-6 * row["clock"]["fleet"] * row["updates"] for row in found["rows"])
    assert found["studies"][0]["clock"]["fleet"] == pytest.approx(whole)
    table = empirical["said"](found)
    assert "width 16 " in table and table.splitlines()[-1].startswith("double-descent")
    with pytest.raises(SystemExit, match="no case's name"):
        empirical["main"](["--studies", "lottery-ticket", "--cases", "nothing"])
