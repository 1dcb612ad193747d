"""Where no extra is installed the package works, and what needs one says which."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXTRAS = ("lightning", "transformers", "tensorboard", "wandb", "mlflow", "ray")

SCRIPT = """
import importlib, json, sys

BLOCKED = {"lightning", "pytorch_lightning", "transformers", "accelerate", "tensorboard", "wandb", "mlflow", "ray"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
sys.path.insert(0, sys.argv[1])
import phenoscope
from phenoscope import lab, record, train  # noqa

def sink(module, name, *arguments):
    getattr(importlib.import_module(f"phenoscope.integrations.{module}"), name)(*arguments)

uses = {
    "lightning": lambda: importlib.import_module("phenoscope.integrations.lightning"),
    "transformers": lambda: importlib.import_module("phenoscope.integrations.transformers"),
    "tensorboard": lambda: sink("tensorboard", "TensorBoard", "logs"),
    "wandb": lambda: sink("wandb", "WandB"),
    "mlflow": lambda: sink("mlflow", "MLflow"),
    "ray": lambda: phenoscope.run("snip", preset="smoke", engine="ray", fresh=True, results=sys.argv[2]),
}
said = {}
for extra, use in uses.items():
    try:
        use()
    except Exception as error:
        said[extra] = [type(error).__name__, str(error)]
print(json.dumps([said, sorted(BLOCKED & {name.split(".")[0] for name in sys.modules})]))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    source = str(Path(__file__).parents[2] / "src")
    command = [sys.executable, "-W", "error", "-c", SCRIPT, source, str(tmp_path_factory.mktemp("results"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_needs_an_extra_raises_an_error_that_names_it(told, extra):
    kind, said = told[0][extra]
    # an engine is chosen by its name, so that one which is not there is bad input
    assert kind == ("InputError" if extra == "ray" else "ImportError") and f"pip install 'phenoscope[{extra}]'" in said


def test_no_framework_is_imported_by_the_package(told):
    assert told[1] == []


def test_every_extra_is_declared_and_none_brings_torchvision():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    (everything,) = extras["all"]
    assert set(everything.removeprefix("phenoscope[").removesuffix("]").split(",")) == set(EXTRAS) < set(extras)
    named = [requirement for listed in extras.values() for requirement in listed] + project["dependencies"]
    assert not any("torchvision" in requirement for requirement in named)
