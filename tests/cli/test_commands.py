"""The commands as a user calls them: what they leave and print, and how wrong input ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import phenoscope
from phenoscope import Recorder, open_run
from phenoscope.catalogue import entries
from phenoscope.cli.app import run

# What `--model` and `--data` name: a network whose first two filters are never trained.
USER = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 2))

def load():
    x = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return x, (x.mean((1, 2, 3)) > 0).long()

number = 3
"""


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A folder with the user's module and a recorded run, which is the current folder."""
    (tmp_path / "mine.py").write_text(USER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("mine", None)
    import mine

    model, (x, y) = mine.build(), mine.load()
    model[0].weight.register_hook(lambda g: torch.cat([torch.zeros_like(g[:2]), g[2:]]))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with Recorder(model, "run", optimizer=optimizer, every=2):
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    yield tmp_path
    sys.modules.pop("mine", None)


def out(capsys):
    return json.loads(capsys.readouterr().out)


def test_ablate_finds_the_untrained_filters_and_leaves_its_tables_in_the_run(user, capsys):
    assert run(["ablate", "run", "--model", "mine:build", "--data", "mine:load", "--repeats", "3", "--json"]) == 0
    facts = out(capsys)
    first = facts["redundant"]["layers"][0]
    assert first["layer"] == "0" and first["count"] == 2 and first["filters"] == 6
    assert facts["slimming"]["after"]["parameters"] < facts["slimming"]["before"]["parameters"]
    assert sorted(p.name for p in Path("run/ablation").iterdir()) == [
        "least_evolved.json",
        "redundant.json",
        "slimming.json",
    ]
    assert (
        run(["ablate", "run", "--model", "mine:build", "--data", "mine:load", "--repeats", "2", "--layers", "2"]) == 0
    )
    shown = capsys.readouterr().out
    assert "2 of 6" in shown and "parameters" in shown and "run/ablation" in shown


def test_ablate_takes_other_weights_from_a_checkpoint(user, capsys):
    import mine

    torch.save({"state_dict": mine.build().state_dict()}, "other.pt")
    options = [
        "ablate",
        "run",
        "--model",
        "mine:build",
        "--data",
        "mine:load",
        "--repeats",
        "1",
        "--json",
        "--checkpoint",
    ]
    assert run([*options, "other.pt"]) == 0
    assert out(capsys)["redundant"]["layers"][0]["count"] == 2
    assert run([*options, "missing.pt"]) == 2


def test_report_writes_pages(user, capsys):
    assert run(["report", "run", "-o", "pages", "--json"]) == 0
    assert Path(out(capsys)["report"]).read_text().startswith("<!doctype html>")


def test_evolve_reads_checkpoints_with_and_without_a_model(user, capsys):
    import mine

    Path("saved").mkdir()
    for step in (10, 20, 30):
        torch.save(mine.build().state_dict(), f"saved/step-{step}.pt")
    assert run(["evolve", "saved", "-o", "evolved", "--threshold", "0.1", "--json"]) == 0
    assert out(capsys) == {"run": "evolved", "layers": 3, "records": 2, "steps": [20, 30], "axes": "assumed"}
    assert run(["evolve", "saved", "-o", "again", "--threshold", "0.1", "--model", "mine:build"]) == 0
    assert list(open_run("again")) == ["0", "2", "4"]


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["report", "nowhere"], "nowhere holds no run"),
        (["report"], "Missing argument"),
        (["dance"], "dance"),
        (["ablate", "run", "--model", "mine", "--data", "mine:load"], "package.module:function"),
        (["ablate", "run", "--model", "absent:build", "--data", "mine:load"], "absent cannot be imported"),
        (["ablate", "run", "--model", "mine:absent", "--data", "mine:load"], "mine has no absent"),
        (["ablate", "run", "--model", "mine:number", "--data", "mine:load"], "int, not a torch.nn.Module"),
        (["ablate", "run", "--model", "mine:build", "--data", "mine:number"], "a pair of tensors"),
        (["ablate", "run", "--model", "mine:build", "--data", "mine:load", "--layers", "x*"], "matches none"),
        (["ablate", "run", "--model", "mine:build", "--data", "mine:load", "--device", "mars"], "--device mars"),
        (["ablate", "run", "--model", "mine:build", "--data", "mine:load", "--epsilon", "2"], "epsilon"),
        (["evolve", "nowhere", "-o", "x", "--threshold", "0.1"], "nowhere"),
        (["demo", "--epochs", "0"], "epochs"),
    ],
)
def test_wrong_input_ends_with_one_line_and_status_2(user, capsys, arguments, message):
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and not shown.out


def test_an_interrupted_demo_says_so_and_keeps_what_was_recorded(tmp_path):
    # Ctrl-C is ignored by what a shell starts in the background, and by its children: undo that.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from phenoscope.cli.app import main; main(['demo', '-o', 'demo'])"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    journal = tmp_path / "demo" / "vgg16" / "journal-0.bin"
    while not (journal.is_file() and journal.stat().st_size):
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130 and b"interrupted; what was finished is kept" in said and b"Traceback" not in said
    run = open_run(tmp_path / "demo" / "vgg16")
    assert len(run.steps) >= 1 and "block1.conv1.weight" in run.final()


def test_the_demo_trains_ablates_slims_and_reports_both_networks(tmp_path):
    program = "import sys; from phenoscope.cli.app import main; main(sys.argv[1:])"
    command = [
        sys.executable,
        "-c",
        program,
        "demo",
        "--epochs",
        "1",
        "--repeats",
        "1",
        "-o",
        str(tmp_path / "demo"),
        "--json",
    ]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"PYTHONWARNINGS": "error::RuntimeWarning"},
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    summary = json.loads(ran.stdout)
    assert set(summary["runs"]) == {"vgg16", "resnet50"} and len(summary["findings"]) == 5
    for name, facts in summary["runs"].items():
        recorded = open_run(tmp_path / "demo" / name)
        assert recorded.steps.tolist() == [10, 20] and len(facts["layers"]) == 5 and 0 <= facts["accuracy"] <= 1
        assert not recorded.scalars.loss.isnull().any()
        layer = facts["layers"][2]
        assert layer["changed"] == pytest.approx(float(recorded.means.changed.sel(layer=layer["layer"]).mean()))
        assert (tmp_path / "demo" / name / "ablation" / "slimming.json").is_file()
    assert Path(summary["report"]).is_file()
    again = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert json.loads(again.stdout)["runs"]["vgg16"]["layers"] == summary["runs"]["vgg16"]["layers"], (
        "the same seed gives the same bits"
    )


def test_the_version_is_told(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"phenoscope {phenoscope.__version__}\n"


def test_without_a_command_the_help_is_shown(capsys):
    assert run([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_list_and_show_print_the_catalogue(capsys):
    assert run(["list", "--section", "empirical", "--json"]) == 0
    rows = out(capsys)
    assert len(rows) == 25 and {"id", "section", "title", "venue", "claims", "status", "last", "verdicts"} == set(
        rows[0]
    )
    assert run(["list"]) == 0
    assert (
        f"{len(entries())} papers, {sum(len(each.claims) for each in entries())} registered claims"
        in capsys.readouterr().out
    )
    assert run(["show", "functions-evolve"]) == 0
    shown = capsys.readouterr().out
    assert "lower-layers-change-more-raw" in shown and "< -0.5" in shown and "gpu scale" in shown
    assert run(["show", "snip", "--json"]) == 0
    assert out(capsys)["claims"][0]["expects"]
    assert run(["show", "nothing-like-it"]) == 2
