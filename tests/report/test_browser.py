import numpy as np
import pytest

from phenoscope.record import open_run

pytestmark = pytest.mark.browser

NAMES = ["index.html", "run-plain.html", "run-img-src-x-onerror-alert-2.html"]


def draw_all(page):
    for figure in page.query_selector_all("figure.plot"):
        figure.scroll_into_view_if_needed(timeout=15_000)
        page.wait_for_function("f => f.dataset.drawn !== undefined", arg=figure, timeout=15_000)


def makes_frames(page):
    return page.evaluate(
        "() => new Promise(done => { requestAnimationFrame(() => done(true)); setTimeout(() => done(false), 2000); })"
    )


@pytest.fixture
def visit(opened, report):
    """visit(name, **settings of the window) -> a page of the report with all figures drawn."""

    def open_page(name, **settings):
        page = opened((report / name).as_uri(), **settings)
        try:
            draw_all(page)
        except Exception:
            if makes_frames(page):
                raise
            # Headless Chromium 150 stopped making frames in about 1 of 100 loads, its own screenshot hanging, too.
            print(f"{name}: the browser stopped making frames; opened once more")
            page = opened((report / name).as_uri(), **settings)
            draw_all(page)
        return page

    return open_page


@pytest.mark.parametrize("name", NAMES)
def test_on_a_phone_every_figure_is_drawn_and_the_page_does_not_scroll_sideways(visit, name):
    page = visit(name, viewport={"width": 375, "height": 800}, has_touch=True, is_mobile=True)
    check_drawn(page, name)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    wide = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && !e.closest('svg')"
        " && e.getBoundingClientRect().right > 376).map(e => e.className || e.tagName)"
    )
    assert wide == []


def check_drawn(page, name):
    figures = page.query_selector_all("figure.plot")
    assert len(figures) == (1 if name == "index.html" else 6)
    for figure in figures:
        # a line, an image, a mark or a heat map's picture, of some size
        assert figure.evaluate(
            "f => [...f.querySelectorAll('.js-line, .point, .plot image, .hm image')]"
            ".some(e => e.getBoundingClientRect().width > 5 && e.getBoundingClientRect().height > 3)"
        ), figure.get_attribute("aria-label")


def test_columns_stand_below_one_another_on_a_phone_and_side_by_side_after_it_is_turned(visit):
    page = visit("index.html", viewport={"width": 375, "height": 800})
    places = "[...document.querySelectorAll('.drawing .annotation')].map(e => e.getBoundingClientRect().top)"
    above, below = page.evaluate(places)
    assert below > above + 300
    page.set_viewport_size({"width": 1000, "height": 700})
    page.wait_for_function(f"() => {{ const [a, b] = {places}; return a === b; }}", timeout=15_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000


def test_colours_follow_the_scheme_also_when_it_changes(visit):
    page = visit("run-plain.html", color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('.drawing .xtick text')).fill"
    light = page.evaluate(ground), page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"() => {ink} !== '{light[1]}'", timeout=15_000)
    dark = page.evaluate(ground), page.evaluate(ink)

    def brightness(color):
        return sum(int(n) for n in color.strip("rgba()").split(",")[:3])

    assert brightness(light[0]) > 700 and brightness(dark[0]) < 120
    assert brightness(dark[1]) > brightness(light[1]) + 100


def test_hostile_names_do_nothing_and_are_shown_as_they_are(visit):
    page = visit(NAMES[2])
    check_drawn(page, NAMES[2])
    assert page.query_selector("img, a[href^=javascript], svg a") is None
    legend = [entry.text_content() for entry in page.query_selector_all("figure.plot .legend button span")]
    assert '<a href="javascript:alert(1)">x</a>' in legend
    assert page.text_content("h1") == "<img src=x onerror=alert(2)>"


def test_menus_and_legend_work(visit, runs):
    page = visit("run-plain.html")
    check_drawn(page, "run-plain.html")
    drawing = "f => f.querySelector('.drawing')"

    def becomes(condition, figure):
        page.wait_for_function(condition, arg=figure, timeout=15_000)

    measures = page.query_selector("figure[aria-label='The measures against the step']")
    assert measures.evaluate(f"{drawing}.layout.yaxis.type") == "linear"
    measures.query_selector("fieldset[aria-label='changed S'] button:text('log')").click()
    becomes(f"{drawing}.layout.yaxis.type === 'log'", measures)
    lines = measures.evaluate("f => f.querySelectorAll('.js-line').length")
    measures.query_selector(".legend button").click()  # one line less in each of the four rows
    becomes(f"f => f.querySelectorAll('.js-line').length === {lines} - 4", measures)

    distances = page.query_selector("figure[aria-label='Distance of every filter, sorted']")
    raw = distances.evaluate(f"{drawing}._fullData[0].y[0]")
    distances.query_selector("button:text('per weight')").click()
    becomes("f => f.querySelector('.ytitle').textContent.startsWith('distance per weight')", distances)
    per_weight = distances.evaluate(f"{drawing}._fullData[0].y[0]")
    assert per_weight == pytest.approx(raw / 27, rel=1e-5)  # 3 channels of 3 x 3, in float32

    heat = page.query_selector("figure[aria-label='Every filter at every step']")
    heat.query_selector("fieldset[aria-label='layer'] button:text('third')").click()
    heat.query_selector("button:text('idle')").click()
    becomes(f"{drawing}._fullData.findIndex(trace => trace.visible === true) === 1", heat)
    shown = np.array(heat.evaluate(f"{drawing}._fullData[1].z.map(row => Array.from(row))"))
    idle = open_run(runs[0])["third"]["idle"].to_numpy().T
    order = np.argsort(-idle.mean(1), kind="stable")
    np.testing.assert_allclose(shown, idle[order], atol=1e-6)  # float32


def test_no_button_offers_to_upload_a_figure(visit):
    page = visit("index.html")
    titles = [button.get_attribute("data-title") for button in page.query_selector_all(".modebar-btn")]
    assert len(titles) == 6 and not any("share" in title.lower() or "cloud" in title.lower() for title in titles)
