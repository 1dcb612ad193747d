"""The plain loop runs as it stands, with any budget, and says what its run says."""

import runpy
from pathlib import Path

import pytest

from phenoscope import open_run

EXAMPLE = Path(__file__).parents[2] / "examples" / "plain_pytorch.py"


@pytest.fixture
def main():
    return runpy.run_path(str(EXAMPLE))["main"]


def test_it_records_prints_what_it_found_and_writes_pages(main, tmp_path, capsys):
    main(["--steps", "80", "--output", str(tmp_path / "run")])
    out = capsys.readouterr().out
    run = open_run(tmp_path / "run")
    assert list(run) == ["conv1", "conv2", "conv3", "head"] and run.steps.tolist() == list(range(10, 81, 10))
    assert float(run.scalars.loss[-1]) < float(run.scalars.loss[0])
    changed = run.means.changed.sel(layer="conv1").values
    first, last = (100 * part.mean() for part in (changed[:2], changed[-2:]))
    assert f"{first:.1f}%" in out and f"{last:.1f}%" in out  # thirds of eight records are two
    page = tmp_path / "run-report" / "index.html"
    assert page.is_file() and str(page) in out


def test_a_budget_too_small_for_the_median_of_settling_still_ends_well(main, tmp_path, capsys):
    main(["--steps", "20", "--every", "10", "--output", str(tmp_path / "run")])
    assert capsys.readouterr().out.count("did not settle") == 4
