"""The GAN runs as it stands: one run a network, each of its own optimizer's updates alone."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "gan.py"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


def test_both_networks_are_recorded_and_shown_side_by_side(example, tmp_path, capsys):
    runs = example["main"](["--steps", "60", "--output", str(tmp_path)])
    out = capsys.readouterr().out
    assert list(runs) == ["generator", "discriminator"]
    for run in runs.values():
        assert run.steps.tolist() == list(range(10, 61, 10)) and float(run.means.changed.min()) > 0
        assert np.isfinite(run.scalars.loss).all()
    with Image.open(tmp_path / "digits.png") as drawn:
        assert drawn.size == (640, 400)
    pages = {page.name for page in (tmp_path / "report").glob("*.html")}
    assert pages >= {"index.html", "run-generator.html", "run-discriminator.html"} and "In the last third" in out


def test_an_update_of_one_network_moves_nothing_of_the_other(example, tmp_path):
    """With one optimizer at a standstill its run holds no movement, whatever the other network does."""
    torch.manual_seed(0)
    g, d = example["generator"](), example["discriminator"]()
    before = [parameter.detach().clone() for parameter in d.parameters()]
    for parameter in d.parameters():
        parameter.requires_grad_(False)
        parameter.requires_grad_(True).register_hook(torch.zeros_like)  # the only gradient that d gets
    example["play"](g, d, torch.randn(80, 1, 8, 8), steps=10, every=5, output=tmp_path)
    assert all(torch.equal(old, new) for old, new in zip(before, d.parameters(), strict=True))
    still, moving = (example["open_run"](tmp_path / name) for name in ("discriminator", "generator"))
    assert float(still.means.distance.max()) == 0 and float(moving.means.distance.min()) > 0
