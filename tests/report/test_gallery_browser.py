import itertools
import json
import re
import time

import pytest
from plotly.subplots import make_subplots

from phenoscope.catalogue import entries
from phenoscope.report import gallery
from phenoscope.report.live import LiveSite

from .conftest import HOSTILE
from .test_serve import started, stopped
from .written import claim_facts, figure, verdict_facts, write_result

pytestmark = pytest.mark.browser

PHONE = {"viewport": {"width": 375, "height": 800}, "has_touch": True, "is_mobile": True}
SHOWN = "[...document.querySelectorAll('.card')].filter(e => e.getClientRects().length).map(e => e.dataset.id)"
WIDE = (
    "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre') && !e.closest('svg')"
    " && e.getBoundingClientRect().right > 376).map(e => e.className || e.tagName)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A gallery with every verdict, a figure, remarks, and one study of hostile content; not to be changed."""
    folder = tmp_path_factory.mktemp("gallery")
    results = folder / "results"
    verdicts = ("refuted", "inconclusive", "not applicable", "not run at this scale", "failed")
    for each, verdict in zip(entries(), verdicts, strict=False):
        write_result(results, verdict_facts(each.id, ["holds", verdict]))
    snip = verdict_facts("snip", ["holds", "refuted", "inconclusive"])
    remarks = {"note": "A long note. " * 20, "amended": "why", "reason": "x" * 300}
    snip["claims"] = [each | remarks for each in snip["claims"]]
    snip["claims"][0] |= {"unit": "none", "others": [0.2, 0.3, "Infinity"], "estimate": "Infinity"}
    write_result(results, snip, drawn=figure().update_layout(title="<b>bold</b> 1 < 2"))
    bad = HOSTILE[0]
    facts = verdict_facts("rise", ["holds"], seed=bad, device=bad, date=bad, changed=[bad], versions={bad: bad})
    texts = ("statement", "observable", "unit", "source", "reason", "note", "doubt", "amended", "scale")
    facts["claims"] = [
        each | {name: HOSTILE[i % len(HOSTILE)] for i, name in enumerate(texts)} for each in facts["claims"]
    ]
    facts["claims"].append(claim_facts(entries()[0].claims[0], "holds") | {"id": bad, "expects": bad})
    drawn = figure().update_layout(title=HOSTILE[1], xaxis_title=HOSTILE[0])
    drawn.data[0].name, drawn.data[1].name = HOSTILE[:2]
    drawn.add_layout_image(source="https://elsewhere.example/a.png")
    drawn.add_annotation(text="<a href='https://elsewhere.example'>x</a><span style='x'>y</span>", x=1, y=1)
    write_result(results, facts, drawn=drawn, parameters={bad: bad})
    columns = make_subplots(1, 3, subplot_titles=["a", "b", "c"])
    for column in (1, 2, 3):
        columns.add_scatter(y=[1, 2], row=1, col=column)
    write_result(results, verdict_facts("lime", ["holds"]), drawn=columns)
    return gallery(results, folder / "site").parent


def drawn(page):
    page.query_selector("figure.plot").scroll_into_view_if_needed(timeout=30_000)
    page.wait_for_function("() => document.querySelector('figure.plot').dataset.drawn !== undefined", timeout=30_000)


def test_filters_narrow_the_cards_and_stay_in_the_address(opened, site):
    page = opened((site / "index.html").as_uri())
    assert len(page.evaluate(SHOWN)) == len(entries())
    page.select_option("select[name=section]", "empirical")
    assert len(page.evaluate(SHOWN)) == sum(each.section == "empirical" for each in entries())
    page.select_option("select[name=verdict]", "refuted")
    assert page.evaluate(SHOWN) == ["snip"] and page.text_content(".count") == f"1 of {len(entries())} papers"
    page.fill("input[name=text]", "LEE single-shot")
    assert page.evaluate(SHOWN) == ["snip"]
    page.fill("input[name=text]", "no such words")
    assert page.evaluate(SHOWN) == [] and page.is_visible("#nothing")
    address = page.url
    assert "section=empirical" in address and "text=no+such+words" in address
    again = opened(address)
    assert again.evaluate(SHOWN) == [] and again.input_value("input[name=text]") == "no such words"
    again.click("button[type=reset]")
    again.wait_for_function(f"() => {SHOWN}.length === {len(entries())}")
    assert "#" not in again.url
    assert len(opened(f"{(site / 'index.html').as_uri()}#verdict=nonsense").evaluate(SHOWN)) == len(entries())


def test_the_index_works_from_the_keyboard(opened, site):
    page = opened((site / "index.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "text"
    page.keyboard.type("snip: single")
    assert page.evaluate(SHOWN) == ["snip"]
    for name in ("section", "verdict"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == name
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement, '::after').outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url("**/snip.html", timeout=30_000)


@pytest.mark.parametrize("name", ["index.html", "snip.html", "rise.html", "lime.html"])
def test_on_a_phone_nothing_sticks_out(opened, site, name):
    page = opened((site / name).as_uri(), **PHONE)
    if page.query_selector("figure.plot"):
        drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    assert page.evaluate(WIDE) == []
    labels = page.evaluate(
        "[...document.querySelectorAll('.row svg')].map(s => [...s.querySelectorAll('text')]"
        ".map(t => [t.getBoundingClientRect().left, t.getBoundingClientRect().right]))"
    )
    for row in labels:  # of a forest plot: inside the window, and none over another
        assert all(left >= 0 and right <= 376 for left, right in row)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(row))


def test_plots_side_by_side_stand_below_one_another_on_a_phone(opened, site):
    page = opened((site / "lime.html").as_uri(), **PHONE)
    drawn(page)
    places = "[...document.querySelectorAll('.drawing .annotation')].map(e => e.getBoundingClientRect().top)"
    first, second, third = page.evaluate(places)
    assert second > first + 200 and third > second + 200
    page.set_viewport_size({"width": 1000, "height": 700})
    page.wait_for_function(f"() => new Set({places}).size === 1", timeout=30_000)


def test_a_study_shows_its_forest_and_its_figure_in_both_schemes(opened, site):
    page = opened((site / "snip.html").as_uri(), color_scheme="dark")
    drawn(page)
    assert page.evaluate("document.querySelectorAll('.claim .mark').length") == 3
    assert page.evaluate(
        "[...document.querySelectorAll('.claim .mark')].every(m => m.getBoundingClientRect().width > 5)"
    )
    assert page.evaluate("document.querySelectorAll('.js-line').length") >= 1
    assert page.text_content(".gtitle") == "bold 1 < 2"
    names = [entry.text_content() for entry in page.query_selector_all(".legend button span")]
    assert names == ["pruned", "dense"]
    swatches = page.evaluate(
        "[...document.querySelectorAll('.legend i')].map(e => getComputedStyle(e).backgroundColor)"
    )
    assert len(set(swatches)) == 2 and "currentcolor" not in swatches
    ink = "getComputedStyle(document.querySelector('.measured')).color"
    dark = page.evaluate(ink)
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"() => {ink} !== '{dark}'", timeout=30_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_verdicts_can_be_read_on_their_ground(opened, site, scheme):
    # WCAG AA: a contrast of 4.5 for small text; colors are drawn to a canvas so that mixed ones count as they look.
    page = opened((site / "index.html").as_uri(), color_scheme=scheme)
    worst = page.evaluate("""() => {
      const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
      const light = (pixel) => {
        const [r, g, b] = [...pixel].slice(0, 3).map((v) => v / 255)
          .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const over = (...colors) => {
        for (const color of colors) { context.fillStyle = color; context.fillRect(0, 0, 1, 1); }
        return light(context.getImageData(0, 0, 1, 1).data);
      };
      const style = (e) => getComputedStyle(e);
      return Math.min(...[...document.querySelectorAll(".card .badge, .card .paper")].map((e) => {
        const ground = [style(document.body).backgroundColor, style(e.closest(".card")).backgroundColor,
                        style(e).backgroundColor];
        const [a, b] = [over(...ground), over(...ground, style(e).color)].sort((x, y) => x - y);
        return (b + 0.05) / (a + 0.05);
      }));
    }""")
    assert worst >= 4.5


def test_hostile_content_does_nothing_and_is_shown_as_it_is(opened, site):
    page = opened((site / "rise.html").as_uri())
    drawn(page)
    assert page.query_selector("main img, a[href^=javascript], .drawing a, .drawing image, iframe") is None
    assert HOSTILE[0] in page.text_content("main")
    legend = [entry.text_content() for entry in page.query_selector_all(".legend button span")]
    assert legend == HOSTILE[:2]
    page.goto((site / "index.html").as_uri())
    assert page.query_selector("main img") is None


def test_a_served_page_follows_a_study_that_runs_and_shows_its_result(opened, tmp_path):
    results = tmp_path / "results"
    (results / ".running").mkdir(parents=True)
    told = results / ".running" / "snip-1.json"
    now = time.time()
    told.write_text(json.dumps({"id": "snip", "done": 3, "total": 40, "started": now, "updated": now}))
    server, thread = started(LiveSite([results], []))
    try:
        page = opened(f"{server.url}snip.html")
        page.wait_for_selector("#live progress", timeout=30_000)
        assert "3 of 40 cells" in page.text_content("#live li")
        told.write_text(json.dumps({"id": "snip", "done": 4, "total": 40, "started": now, "updated": now}))
        page.wait_for_function(
            "() => document.querySelector('#live li')?.textContent.includes('4 of 40')", timeout=30_000
        )
        assert page.query_selector(".claim .mark") is None
        told.unlink()
        write_result(results, verdict_facts("snip", ["holds"]))
        page.wait_for_selector(".claim.holds .mark", timeout=30_000)
        page.wait_for_function("() => !document.querySelector('#live li')", timeout=30_000)
        drawn(page)

        page.click("#live button")
        write_result(results, verdict_facts("snip", ["refuted"], date="2026-11-21T00:00:00Z"), key="new")
        page.wait_for_function(
            "() => document.querySelector('#live').textContent.includes('something new')", timeout=30_000
        )
        assert page.query_selector(".claim.holds") is not None  # paused
        page.click("#live button")
        page.wait_for_selector(".claim.refuted", timeout=30_000)
    finally:
        stopped(server, thread)


def test_the_pages_of_recorded_runs_are_served_with_their_figures(opened, runs):
    server, thread = started(LiveSite([], [runs[0].parent]))
    try:
        page = opened(server.url)
        page.click("a[href='runs/run-plain.html']")
        page.wait_for_url("**/runs/run-plain.html", timeout=30_000)
        drawn(page)
        page.click(".back a")
        page.wait_for_url("**/runs/index.html", timeout=30_000)
        page.click(".back a")
        page.wait_for_url(re.compile(r"/index\.html$"), timeout=30_000)
    finally:
        stopped(server, thread)
