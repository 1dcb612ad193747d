"""list, show, run, doctor: what they print, what they refuse, how they end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.lab import cells, example

from phenoscope.catalogue import entries
from phenoscope.cli.app import run


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setattr(sys.modules["phenoscope.lab.run"], "study", lambda id: example.study)
    monkeypatch.setattr("phenoscope.cli.experiments.study", lambda id: example.study)


def said(capsys, *arguments):
    status = run([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def test_run_prints_the_object_that_is_kept_as_the_verdict(tmp_path, capsys, planted):
    status, out, _ = said(capsys, "run", "snip", "--results", tmp_path, "--jobs", 1, "--json")
    facts = json.loads(out)
    (folder,) = (tmp_path / "snip").iterdir()
    assert status == 0 and facts == json.loads((folder / "verdict.json").read_text())
    assert [claim["verdict"] for claim in facts["claims"]] == ["holds", "refuted", "not applicable"]
    assert {"id", "preset", "seed", "seconds", "device", "versions", "claims"} <= facts.keys()


def test_run_shows_verdicts_with_their_numbers_and_notes(tmp_path, capsys, planted):
    status, out, _ = said(capsys, "run", "snip", "--results", tmp_path, "--jobs", 1, "--set", "shift=2")
    assert status == 0 and "holds" in out and "beats-random" in out and "n = 5" in out
    assert "because the numbers were planted so" in out and "nothing qualified" in out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["run"], "name studies"),
        (["run", "snip", "--all"], "one of the three"),
        (["run", "snop"], "did you mean snip"),
        (["run", "snip", "--set", "shift"], "write --set name=value"),
        (["run", "snip", "--set", "shfit=1"], "did you mean shift"),
        (["run", "snip", "--set", "seeds=many"], "a whole number is needed"),
        (["run", "snip", "--data", "json:loads"], "takes no --data"),
        (["run", "snip", "--model", "nothing:build"], "cannot be imported"),
        (["run", "snip", "--preset", "huge"], "presets are"),
        (["run", "snip", "--engine", "slurm"], "engines are"),
        (["list", "--status", "done"], "specified, ready, run"),
        (["list", "--section", "physics"], "sections are"),
        (["show", "snop"], "did you mean snip"),
    ],
)
def test_wrong_requests_end_with_one_line_and_status_2(arguments, words, tmp_path, capsys, planted):
    results = ["--results", str(tmp_path)]
    status, out, error = said(capsys, *arguments, *results)
    assert status == 2 and not out and words in error and len(error.strip().splitlines()) == 1


def test_a_failing_study_ends_with_status_1_and_the_others_run(tmp_path, capsys, planted, monkeypatch):
    monkeypatch.setattr(example.study, "conduct", lambda lab, **_: lab.map(cells.sometimes_fails, [{"number": 2}]))
    monkeypatch.setattr(type(example.study), "parameters", {})
    status, _, error = said(capsys, "run", "snip", "--results", tmp_path, "--jobs", 1)
    assert status == 1 and "ZeroDivisionError" in error and "number=2" in error


def test_many_studies_say_which_one_runs_and_end_with_a_tally(tmp_path, capsys, planted):
    status, out, error = said(capsys, "run", "snip", "trades", "--results", tmp_path, "--jobs", 1)
    assert status == 0 and "study 1 of 2: snip" in error and "study 2 of 2: " in error
    assert "2 of 2 studies" in out and "2 holds, 2 refuted, 2 not applicable" in out.replace("\n", " ")


def test_list_shows_states_and_last_verdicts(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    folder = tmp_path / "functions-evolve" / "default-1"
    folder.mkdir(parents=True)
    claims = [{"id": "a", "verdict": "holds"}, {"id": "b", "verdict": "holds"}, {"id": "c", "verdict": "refuted"}]
    (folder / "verdict.json").write_text(json.dumps({"preset": "default", "date": "2026", "claims": claims}))
    _, out, _ = said(capsys, "list", "--results", tmp_path, "--json")
    rows = {row["id"]: row for row in json.loads(out)}
    assert rows.keys() == {each.id for each in entries()}
    assert rows["functions-evolve"]["status"] == "run" and rows["functions-evolve"]["verdicts"]["c"] == "refuted"
    assert rows["ppgn"]["status"] == "specified"
    _, out, _ = said(capsys, "list", "--results", tmp_path, "--status", "run")
    assert "2 hold, 1 refuted" in out and "ppgn" not in out


def test_show_tells_parameters_presets_functions_and_the_last_result(tmp_path, capsys):
    _, out, _ = said(capsys, "show", "functions-evolve", "--results", tmp_path, "--json")
    study = json.loads(out)["study"]
    assert study["parameters"]["width"] == {"default": 0.25, "help": "multiplies the channels of both networks."}
    assert {"record.Recorder", "record.ablate", "train.fit"} <= set(study["uses"]) and "smoke" in study["presets"]
    _, out, _ = said(capsys, "show", "ppgn", "--results", tmp_path)
    assert "no study of it yet" in out


def test_doctor_says_that_this_installation_works(capsys):
    status, out, _ = said(capsys, "doctor", "--json")
    findings = {each["name"]: each for each in json.loads(out)["findings"]}
    assert status == 0 and findings["processes"]["state"] == "works" and findings["torch"]["state"] == "works"
    assert all(each["advice"] for each in findings.values() if each["state"] != "works")


def test_ctrl_c_ends_cleanly_and_keeps_finished_cells(tmp_path):
    program = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys\nfrom phenoscope.cli import app, experiments\nimport phenoscope.lab\n"
        "from tests.lab import cells, example\n"
        "run = sys.modules['phenoscope.lab.run']\nrun.study = experiments.study = lambda id: example.study\n"
        f"given = [dict(number=n, folder={str(tmp_path)!r}, seconds=0.4) for n in range(40)]\n"
        "def experiment(lab):\n    lab.map(cells.slow, given)\n"
        "experiment.__module__ = 'tests.lab.example'\nexample.study.conduct = experiment\n"
        f"sys.exit(app.run(['run', 'snip', '--results', {str(tmp_path / 'results')!r}, '--jobs', '2']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(Path.cwd())}, stderr=subprocess.PIPE
    )
    kept = tmp_path / "results" / ".cells" / "snip"
    limit = time.monotonic() + 90
    while len(list(kept.glob("[!.]*"))) < 2 and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert (
        process.returncode == 130 and b"interrupted; what was finished is kept" in error and b"Traceback" not in error
    )
    assert 2 <= len(list(kept.glob("[!.]*"))) < 40 and not list((tmp_path / "results" / ".running").iterdir())
