"""The script behind docs/concepts.md: it measures what it says, and its tables are those that the page shows."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def concepts():
    return runpy.run_path(str(ROOT / "benchmarks" / "concepts.py"))


def test_recorders_of_one_training_agree_where_the_definition_says_so(concepts):
    pairs = [(every, tau) for every in (1, 10) for tau in (0.0, 1e-4, 1e-3, 1.0)]
    found, accuracy = concepts["trained"]("Adam", "constant", pairs, updates=60, seed=0)
    assert 0.3 < accuracy <= 1
    for every in (1, 10):
        shares = [found[every, tau].first for tau in (0.0, 1e-4, 1e-3, 1.0)]
        assert shares == sorted(shares, reverse=True)  # a larger tau never finds more
        assert shares[0] > 0.9 and shares[-1] == 0
        assert found[every, 1.0].redundant == 1 and found[every, 0.0].redundant == 0
    # One update of Adam moves an entry by about the rate: over the first, by exactly it, save where a gradient is zero.
    one, _ = concepts["trained"]("Adam", "constant", [(1, None)], updates=1, seed=0)
    assert 0.85 < one[1, None].first_pace <= 1 + 1e-5  # measured 0.96; rounding of float32 above 1


@pytest.mark.parametrize("schedule", ["constant", "cosine", "steps"])
def test_movement_by_rate_takes_the_schedule_out(concepts, tmp_path, schedule):
    """Where the gradient is one everywhere and always, an entry moves by the sum of the rates, whatever they are."""
    model = torch.nn.Linear(4, 3).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    factor = concepts["SCHEDULES"][schedule](60)
    rates = np.array([0.5 * (factor(update) if factor else 1.0) for update in range(60)])
    with concepts["Recorder"](model, tmp_path / "run", optimizer=optimizer, every=5, final=False):
        for rate in rates:
            optimizer.param_groups[0]["lr"] = float(rate)
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
    seen = concepts["seen"](concepts["open_run"](tmp_path / "run"), rates)
    # Distances are kept as float32.
    assert (seen.first_pace, seen.last_pace) == pytest.approx((1.0, 1.0), rel=1e-6)
    assert seen.first == 1.0 and seen.last == (schedule == "constant")  # one window of 5 rates of 0.5, tau 0.5


def test_a_spread_names_the_seeds_that_lack_a_value(concepts):
    spread = concepts["spread"]
    assert spread([1.0, 1.04], "{:.1f}") == "1.0" and spread([1.0, 2.0], "{:.1f}") == "1.5 (1.0 to 2.0)"
    assert spread([np.nan, 3.0], "{:.0f}") == "3, in 1 of 2 seeds" and spread([np.nan], "{:.0f}") == "none"


def test_the_tables_of_the_page_have_the_rows_of_the_script(concepts, capsys):
    """Kept figures are of another day, so rows are compared by what they measure, not by what came out."""
    fresh = concepts["main"](["--updates", "50", "--seeds", "1"])
    assert capsys.readouterr().out.strip() == fresh.strip()
    kept = concepts["KEPT"].read_text(encoding="utf-8")

    def rows(text):
        lines = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("|")]
        return [tuple(map(str.strip, line)) for line in lines]

    assert len(rows(fresh)) == 2 + 21 + 2 + 12 and rows(kept) == rows(fresh)
    page = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    for part in ("ways", "schedules", "facts"):
        assert f"[start:{part}]" in kept and f'--8<-- "docs/measured/concepts.md:{part}"' in page
