"""The page beside the paper says what docs/results and the kept run of the demo say."""

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def paper():
    return runpy.run_path(str(ROOT / "tools" / "paper.py"))


@pytest.fixture(scope="module")
def kept(paper):
    return [json.loads(paper[name].read_text(encoding="utf-8")) for name in ("VERDICTS", "DEMO")]


def test_the_kept_tables_are_those_of_the_kept_figures(paper, kept):
    assert paper["WRITTEN"].read_text(encoding="utf-8") == paper["page"](*kept), "run tools/paper.py"


def test_the_readme_shows_the_same_run_of_the_demo(paper, kept):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split(paper["BEGIN"])[1].split(paper["END"])[0].strip()
    assert shown == paper["beside"](kept[1]).strip(), "run tools/paper.py"


def test_every_claim_stands_there_with_its_verdict(paper, kept):
    rows = [line for line in paper["claims"](kept[0]).splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(kept[0]["claims"])
    for row, claim in zip(rows, kept[0]["claims"], strict=True):
        assert row.endswith(f"| {claim['verdict']} |") and claim["expects"] in row
        assert claim["estimate"] is None or f"{claim['estimate']:.3f}" in row


def test_tables_have_the_papers_five_layers_of_both_networks(paper, kept):
    for table in ("layers", "zeroed"):
        rows = [line for line in paper[table](kept[1]).splitlines() if line.startswith("|")][2:]
        assert len(rows) == 10 and sum("VGG-16" in row for row in rows) == 5
    assert len(paper["beside"](kept[1]).splitlines()) == 2 + 5 + 2


def test_the_page_shows_every_table_and_holds_no_figure_of_its_own(paper, kept):
    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    for name in ("claims", "demo", "layers", "zeroed"):
        assert f'--8<-- "docs/measured/paper.md:{name}"' in page
    assert "|" not in page
