"""The page that compares two runs, as text and in headless Chromium."""

import re
import shutil

import pytest

from phenoscope.core.errors import InputError
from phenoscope.record import open_run
from phenoscope.report import run_diff


@pytest.fixture(scope="module")
def pages(runs, tmp_path_factory):
    """Pages that compare a run with one like it, and a run of hostile names with itself."""
    folder = tmp_path_factory.mktemp("diff")
    shutil.copytree(runs[0], folder / "other")
    return {
        "plain": run_diff(runs[0], folder / "other", folder / "plain"),
        "hostile": run_diff(open_run(runs[1]), runs[1], folder / "hostile", window=3),
    }


def test_the_page_names_both_runs_and_shows_numbers_of_every_layer(pages):
    text = re.sub(r'<script type="application/json".*?</script>', "", pages["plain"].read_text("utf-8"), flags=re.S)
    assert "<h1>plain and other</h1>" in text and text.count("<figure") == 4 and "class='note'" not in text
    for part in ("first", "second", "third", "settled, other", "likeness", "last loss"):
        assert part in text
    assert not re.search(r"""(src|href)=["'](https?:)?//""", text)  # nothing from a network
    assert text.count("<tr>") > 8


def test_hostile_names_appear_only_as_text(pages):
    text = pages["hostile"].read_text("utf-8")
    assert "<img" not in text and '<a href="javascript' not in text and "&lt;img" in text


def test_runs_of_different_networks_are_refused(runs, tmp_path):
    with pytest.raises(InputError, match="no layer in common"):
        run_diff(runs[0], runs[1], tmp_path)


@pytest.mark.browser
@pytest.mark.parametrize("name,width", [("plain", 1200), ("plain", 375), ("hostile", 375)])
def test_every_figure_is_drawn_and_the_page_does_not_scroll_sideways(opened, pages, name, width):
    page = opened(pages[name].as_uri(), viewport={"width": width, "height": 800})
    figures = page.query_selector_all("figure.plot")
    assert len(figures) == 4
    for figure in figures:
        figure.scroll_into_view_if_needed(timeout=15_000)
        page.wait_for_function("f => f.dataset.drawn !== undefined", arg=figure, timeout=15_000)
        assert figure.evaluate("f => f.querySelectorAll('.point, .js-line, .hm image').length") > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.query_selector("img, a[href^=javascript], svg a") is None
