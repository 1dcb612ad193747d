"""The live table names the layers that move most and those that have stopped, on a terminal; elsewhere a line does."""

import io

import pytest
import torch
from rich.console import Console
from torch import nn

from phenoscope import Recorder
from phenoscope.record import live as module
from phenoscope.record.live import Live


def values(distances, changed=None, **scalars):
    named = {f"distance_per_weight/{layer}": d for layer, d in distances.items()}
    named |= {f"distance/{layer}": 10 * d for layer, d in distances.items()}
    named |= {f"changed/{layer}": (changed or {}).get(layer, 0.5) for layer in distances}
    named |= {f"idle/{layer}": 1 - (changed or {}).get(layer, 0.5) for layer in distances}
    return named | scalars


def shown(live):
    """The table as text."""
    out = io.StringIO()
    Console(file=out, width=100).print(live.table())
    return out.getvalue()


@pytest.fixture
def off_terminal():
    return Console(file=io.StringIO(), force_terminal=False, width=60)


def test_the_layer_that_moves_most_stands_first(off_terminal):
    live = Live("runs/a", console=off_terminal)
    live(10, values({"one": 1e-6, "two": 3e-4, "three": 2e-5}, loss=0.25))
    rows = [line for line in shown(live).splitlines() if "%" in line]
    assert [next(n for n in ("one", "two", "three") if n in row) for row in rows] == ["two", "three", "one"]
    assert "3.00e-04" in rows[0] and "50.0 %" in rows[0] and "update 10 · loss 0.25" in shown(live)


def test_a_layer_has_stopped_after_three_records_without_a_change_and_is_named_with_its_last_update(
    off_terminal,
):
    live = Live("runs/a", console=off_terminal)
    for step in (10, 20, 30, 40, 50):
        changed = {"early": float(step <= 20), "never": 0.0, "moves": 0.1}
        live(step, values({"early": 1e-9, "never": 1e-9, "moves": 1e-9}, changed))
        assert ("stopped at 20" in shown(live)) == (step == 50)
        assert ("stopped from the start" in shown(live)) == (step >= 30)
    assert "2 of 3 layers (early at 20, never from the start)" in live.line()
    live(60, values({"early": 1e-9, "never": 1e-9, "moves": 1e-9}, {"early": 0.01, "never": 0.0}))
    assert "stopped: 1 of 3" in live.line()  # negative control: one that moves again has not stopped


def test_the_table_stays_small_however_many_layers_there_are(off_terminal):
    live = Live("runs/a", console=off_terminal)
    many = {f"layer.{i}": 1.0 + i for i in range(300)}
    for step in range(1, 5):
        live(step, values(many, {name: float(i % 2) for i, name in enumerate(many)}))
    assert len(shown(live).splitlines()) < 22
    assert "layer.299" in shown(live) and "and 144 that move less" in shown(live) and "and 146 that" in shown(live)


def test_nan_comes_first_and_markup_in_names_is_text(off_terminal):
    live = Live("[bold]runs[/nonsense]", console=off_terminal)
    live(1, values({"[red]a": 1e-3, "[/b]": float("nan")}))
    assert "[/b]" in shown(live) and "[red]a" in shown(live)
    assert live.line().index("[/b] nan") < live.line().index("[red]a")


def test_what_was_logged_before_stays_in_sight_and_a_gap_shows_no_nonsense(off_terminal):
    live = Live("runs/a", console=off_terminal)
    live(1, {"lr": 0.1})  # a gap: scalars only
    assert "lr 0.1" in live.line() and "most" not in live.line()
    live(2, values({"one": 1.0}, accuracy=0.75))
    live(3, values({"one": 2.0}))
    assert "update 3" in live.line() and "accuracy 0.75" in live.line()


def test_off_a_terminal_a_line_comes_every_ten_seconds_and_one_at_the_end(monkeypatch, off_terminal):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    live = Live("runs/a", console=off_terminal)
    for step in range(1, 24):
        now[0] = float(step)
        live(step, values({"a.long.name.of.a.layer": 1.0}))
    live.close()
    lines = off_terminal.file.getvalue().splitlines()
    assert [line.split("update ")[1].split(";")[0] for line in lines] == ["1", "11", "21", "23"]
    assert all(line.startswith("runs/a: ") for line in lines)  # a narrow console breaks none of them


def test_on_a_terminal_it_draws_at_most_twice_a_second_and_gives_the_terminal_back(monkeypatch):
    now, drawn = [0.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    live = Live("runs/a", console=terminal)
    update = live._screen.update
    monkeypatch.setattr(live._screen, "update", lambda *a, **k: (drawn.append(now[0]), update(*a, **k)))
    second = Live("runs/b", console=terminal)
    assert second._screen is None  # one table at a time
    for tick in range(21):
        now[0] = tick / 10
        live(tick, values({"one": 1.0}))
    live.close()
    live.close()
    second.close()
    assert drawn == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert "one" in terminal.file.getvalue() and terminal.file.getvalue().endswith("\x1b[?25h")  # the cursor is back
    third = Live("runs/c", console=terminal)
    assert third._screen is not None
    third.close()


def test_a_recorder_shows_it_on_standard_error_and_trains_as_without(tmp_path, capsys):
    def weights(**settings):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Recorder(model, tmp_path / "run", optimizer=optimizer, every=1, overwrite=True, **settings) as recorder:
            for _ in range(5):
                loss = model(torch.ones(2, 5)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                recorder.log(loss=loss)
        return model.weight

    assert torch.equal(weights(), weights(live=True))
    out = capsys.readouterr()
    assert "update 5" in out.err and "loss" in out.err and "weight" in out.err and not out.out
