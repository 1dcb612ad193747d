"""The script that makes an environment for the neural-tangents package."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

FILE = Path(__file__).parents[2] / "tools" / "neural_tangents.py"


@pytest.fixture
def tool(monkeypatch):
    found = runpy.run_path(str(FILE))
    ran = []

    def run(command):
        ran.append(command)
        return SimpleNamespace(returncode=int("fails" in found))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "version_info", (3, 11, 0))
    monkeypatch.setattr("venv.create", lambda folder, with_pip: ran.append(folder))
    return SimpleNamespace(**found, all=found, ran=ran)


def test_it_makes_the_environment_and_imports_the_package(tool, tmp_path, capsys):
    tool.main([str(tmp_path / "own")])
    made, install, check = tool.ran
    assert made == tmp_path / "own" and "neural-tangents==0.6.5" in install and "-c" in check
    assert install[0] == str(tool.interpreter(tmp_path / "own")) and str(made) in capsys.readouterr().out


def test_an_environment_that_stands_is_only_completed(tool, tmp_path):
    python = tool.interpreter(tmp_path)
    python.parent.mkdir()
    python.touch()
    tool.main([str(tmp_path)])
    assert len(tool.ran) == 2


def test_it_says_which_step_failed_and_which_python_it_needs(tool, tmp_path, monkeypatch):
    tool.all["fails"] = True
    with pytest.raises(SystemExit, match=r"failed: .*pip"):
        tool.main([str(tmp_path)])
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(SystemExit, match=r"3\.11 or 3\.12"):
        tool.main([str(tmp_path)])
