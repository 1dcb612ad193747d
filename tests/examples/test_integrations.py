"""The examples with Lightning and Hugging Face run as they stand, and once more with --resume."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phenoscope import open_run

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def call(monkeypatch):
    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")

    return run


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* not empty")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")  # Lightning's own call of torch
def test_lightning_on_a_folder_of_images(tmp_path, call, capsys):
    pytest.importorskip("lightning.pytorch")
    rng = np.random.default_rng(0)
    for name, color in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(32):
            pixels = np.clip(rng.normal(color, 20, (12, 10, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    settings = ("--run", tmp_path / "run", "--size", 16, "--every", 1)
    call("lightning_images.py", tmp_path / "photos", *settings, "--epochs", 2)
    call("lightning_images.py", tmp_path / "photos", *settings, "--epochs", 4, "--resume")
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == list(range(1, 9)) and run.means.gap.values.nonzero()[0].tolist() == [4]
    assert float(run.scalars.accuracy[-1]) == 1 and list(run)[-1] == "head"
    assert "phenoscope report" in capsys.readouterr().out


def test_hugging_face_gpt2_on_a_text_file(tmp_path, call, capsys):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    (tmp_path / "book.txt").write_text("to be, or not to be, that is the question. " * 60, encoding="utf-8")
    settings = ("--run", tmp_path / "run", "--every", 2, "--length", 16, "--width", 16, "--layers", 1, "--steps")
    call("huggingface_gpt2.py", tmp_path / "book.txt", *settings, 10)
    call("huggingface_gpt2.py", tmp_path / "book.txt", *settings, 14, "--resume")
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [2, 4, 6, 8, 10, 12, 14] and run.means.gap.values.nonzero()[0].tolist() == [5]
    loss = run.scalars.loss.values
    assert loss[-1] < loss[0] and "transformer.h.0.attn.c_attn.q" in run
    assert "phenoscope report" in capsys.readouterr().out
