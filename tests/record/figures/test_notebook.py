"""What a notebook shows of a run: in step with the run's numbers, safe, and without script or network."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torch import nn

from phenoscope import Recorder, open_run

HOSTILE = "</svg><script>alert(1)</script><img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in ("input", "path", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tags(text):
    """All tags of a page whose tags close in order."""
    parser = Tags()
    parser.feed(text)
    assert parser.open == []
    return parser.seen


def test_a_figure_for_each_measure_and_the_layer_means_in_a_table(recorded):
    _, run = recorded
    text = run._repr_html_()
    found = tags(text)
    assert found.count("svg") == 3 and found.count("tr") == 1 + len(run) and "script" not in found
    assert not re.search(r"https?:|src=|href=|@import|url\(", text)
    mean = run.means.mean("step")
    for name in run:
        assert f"<td>{float(mean['changed'].sel(layer=name)):.3f}</td>" in text
    assert f"{len(run.steps)} records, steps 1 to 12" in text
    assert len(text) < 60_000


def test_the_lines_are_the_measured_shares(recorded):
    _, run = recorded
    paths = re.findall(r"<path d='(M[^']*)' fill='none' stroke='rgb", run._repr_html_())
    assert len(paths) == 3 * len(run)
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", paths[0])]
    want = run.means["changed"].sel(layer=next(iter(run))).to_numpy()
    np.testing.assert_allclose(heights, 8 + (1 - want) * (200 - 8 - 26), atol=0.06)  # one decimal of a pixel


def test_two_outputs_on_one_page_do_not_share_their_buttons(recorded):
    ids = [set(re.findall(r"id='([^']+)'", recorded[1]._repr_html_())) for _ in range(2)]
    assert len(ids[0]) == 6 and not ids[0] & ids[1]


def test_hostile_names_are_text_and_many_layers_are_spread(tmp_path):
    model = nn.ModuleDict({"first": nn.Linear(2, 2), **{f"l{i}": nn.Linear(2, 2) for i in range(30)}})
    model._modules[HOSTILE.replace(".", "")] = nn.Linear(2, 2)
    with Recorder(model, tmp_path / "<b>run", every=1, threshold=0.1) as recorder:
        recorder.step()
    text = open_run(tmp_path / "<b>run")._repr_html_()
    found = tags(text)
    assert not {"script", "img"} & set(found) and "&lt;b&gt;run" in text
    assert found.count("tr") == 13 and "and 20 layers between them" in text and text.count("&#9632;") == 8


def test_gaps_break_the_lines_and_an_empty_run_says_so(tmp_path):
    model = nn.Linear(2, 2)
    Recorder(model, tmp_path / "run", every=1, threshold=0.1).close()
    assert "no records yet" in open_run(tmp_path / "run")._repr_html_()
    for _ in range(2):
        with Recorder(model, tmp_path / "run", every=1, threshold=0.1, resume=True) as recorder, torch.no_grad():
            for _ in range(3):
                model.weight += 0.2
                recorder.step()
    text = open_run(tmp_path / "run")._repr_html_()
    line = re.search(r"<path d='(M[^']*)' fill='none' stroke='rgb", text)[1]
    assert line.count("M") == 1 + int(open_run(tmp_path / "run").means["gap"].values[1:].any())
    tags(text)


@pytest.mark.browser
def test_the_buttons_show_one_figure_at_a_time_without_any_script(recorded, tmp_path):
    import shutil

    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("NO BROWSER: install Chromium (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api")
    (tmp_path / "page.html").write_text(f"<!doctype html><body>{recorded[1]._repr_html_()}</body>", "utf-8")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = chromium.new_context(java_script_enabled=False).new_page()
        page.goto((tmp_path / "page.html").as_uri())
        seen = []
        for button in page.query_selector_all("input"):
            button.check()
            seen.append([svg.is_visible() for svg in page.query_selector_all("svg")])
        chromium.close()
    assert seen == [[True, False, False], [False, True, False], [False, False, True]]
