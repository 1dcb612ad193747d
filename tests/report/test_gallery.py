import base64
import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest

from phenoscope.catalogue import entries, entry
from phenoscope.core.errors import InputError
from phenoscope.report import gallery, own
from phenoscope.report.figure_file import read_figure

from .conftest import HOSTILE
from .written import claim_facts, figure, verdict_facts, write_result


def read(site, name):
    """A page without the numbers of its figures."""
    text = (site / name).read_text(encoding="utf-8")
    return re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.S)


@pytest.fixture
def site(tmp_path):
    """site(*results, runs=()) -> the folder of a gallery of these facts."""

    def build(*results, runs=(), **given):
        for i, facts in enumerate(results):
            write_result(tmp_path / "results", facts, key=str(i), **given)
        return gallery(tmp_path / "results", tmp_path / "site", runs=runs).parent

    return build


def card(site, id):
    item = rf"<li class='card' data-tags='([^']*)' data-id='{id}'>\n(.*?)</li>"
    (found,) = re.findall(item, read(site, "index.html"), re.S)
    return found


def test_every_paper_of_the_catalogue_has_a_card_and_a_page(site):
    built = site()
    text = read(built, "index.html")
    assert text.count("<li class='card'") == len(entries())
    claims = sum(len(each.claims) for each in entries())
    assert f"{len(entries())} papers, {claims} claims; 0 studies run so far" in text
    for each in entries():
        page = read(built, f"{each.id}.html")
        assert page.count("<li class='claim") == len(each.claims)
        assert not re.search(r"""<(script|link|img|iframe)[^>]*(src|href)=["']?(https?:)?//""", page)


def test_the_index_needs_no_plotly_and_is_light(site):
    built = site(*(verdict_facts(each.id, ["holds", "refuted"]) for each in entries()[:60]))
    text = (built / "index.html").read_text(encoding="utf-8")
    assert "plotly" not in text and len(text) < 500_000
    assert re.findall(r'<script src="([^"]+)"', text) == ["cards.js"]
    assert "plotly.min.js" not in read(built, f"{entries()[100].id}.html")  # without a figure


def test_a_card_says_how_far_its_study_is(site, monkeypatch):
    monkeypatch.setattr("phenoscope.report.gallery_page.is_ready", lambda each: each.id == "lime")
    smoke = verdict_facts("rise", ["not judged"], preset="smoke")
    built = site(verdict_facts("snip", ["holds", "holds", "refuted"]), smoke)
    tags, content = card(built, "snip")
    assert tags.split() == ["studied", "holds", "refuted"] and "2 hold<" in content and "1 refuted<" in content
    assert content.count("class='at'") == 3 and "class='forest strip'" in content
    assert card(built, "rise")[0].split() == ["studied", "not-judged"]
    assert card(built, "lime")[0] == "ready" and card(built, "grad-cam")[0] == "specified"
    assert "class='forest strip'" not in card(built, "lime")[1]


def test_every_judged_claim_holds_only_where_it_does(site):
    gpu = verdict_facts("snip", ["holds", "not run at this scale"])
    built = site(gpu, verdict_facts("rise", ["holds", "inconclusive"]), verdict_facts("lime", ["not applicable"]))
    assert [("all-hold" in card(built, id)[0]) for id in ("snip", "rise", "lime")] == [True, False, False]


def test_a_page_shows_each_remark_of_each_claim(site):
    facts = verdict_facts("snip", ["holds"])
    first, second, third = entry("snip").claims
    facts["claims"] = [
        claim_facts(first, "refuted", note="The note.", amended="The amendment.", doubt="The doubt."),
        claim_facts(second, "not applicable", reason="No filter qualified."),
        claim_facts(third, "not run at this scale", reason="It needs a GPU."),
    ]
    page = read(site(facts), "snip.html")
    for said in ("The note.", "The amendment.", "The doubt.", "No filter qualified.", "It needs a GPU."):
        assert page.count(said) == 1 or said == "The doubt.", said
    for word in ("<b>Note</b>", "<b>Amended</b>", "<b>Doubt</b>", "<b>Why</b>"):
        assert word in page
    assert "not run at this scale</span>" in page and first.observable.split("|")[0][:20] in page


def test_a_claim_without_a_unit_shows_its_value_under_other_root_seeds(site):
    id = next(each.id for each in entries() if each.claims[0].unit == "none")
    facts = verdict_facts(id, ["holds"])
    facts["claims"][0] |= {"others": [0.125, "Infinity", None]}
    page = read(site(facts), f"{id}.html")
    assert "<b>Under other root seeds</b> 0.125, ∞<" in page


def test_an_expectation_that_is_not_the_catalogues_is_said_and_so_is_a_claim_it_does_not_have(site):
    facts = verdict_facts("snip", ["holds"])
    facts["claims"][0]["expects"] = "> 0.01"
    stranger = facts["claims"].pop()
    facts["claims"].append(stranger | {"id": "stranger"})
    page = read(site(facts), "snip.html")
    assert "was held against &gt; 0.01; the catalogue now expects &gt; 0.15" in page
    assert "This claim is not in the catalogue." in page and "not in this result" in page


def test_numbers_unit_and_interval_stand_beside_the_expectation(site):
    facts = verdict_facts("snip", ["holds"])
    facts["claims"][0] |= {"estimate": 0.3125, "low": 0.25, "high": 0.375, "n": 5}
    page = read(site(facts), "snip.html")
    assert "0.312, 95 % interval 0.25 to 0.375</strong> · expected &gt; 0.15 · 5 seeds" in page


def test_provenance_and_parameters_are_shown_and_changed_ones_are_marked(site):
    page = read(site(verdict_facts("snip", ["holds"], changed=["model"], seed=7)), "snip.html")
    for said in (
        "[0.1, 0.05, 0.02]",
        "phenoscope.models.mlp",
        "2025-11-20 10:00 UTC",
        "torch 2.13.0",
        "47.3 s",
        "<dd>7</dd>",
    ):
        assert said in page, said
    assert "other parameters than the paper" in page and "<td>changed</td>" in page


def test_further_results_have_pages_of_their_own(site):
    built = site(verdict_facts("snip", ["holds"]), verdict_facts("snip", ["not judged"], preset="smoke"))
    assert "href='snip--smoke-1.html'" in read(built, "snip.html")
    smoke = read(built, "snip--smoke-1.html")
    assert "judges nothing" in smoke and "href='snip.html'" in smoke


def test_damage_is_said_on_the_card_and_on_the_page_and_ends_nothing(site, tmp_path):
    home = write_result(tmp_path / "results", verdict_facts("snip", ["holds"]), key="x")
    (home / "verdict.json").write_text("{")
    loads = '{"data": [{"type": "scattergeo"}]}'
    broken = write_result(tmp_path / "results", verdict_facts("rise", ["holds"]), drawn=loads)
    (broken / "provenance.json").write_text("[]")
    write_result(tmp_path / "results", verdict_facts("lime", ["holds"]), drawn=False)
    write_result(tmp_path / "results", verdict_facts("snip", ["holds"]) | {"id": "no-such-study"})
    built = site()
    assert "cannot be read" in card(built, "snip")[1] and card(built, "snip")[0] in ("ready", "specified")
    assert "verdict.json cannot be read" in read(built, "snip.html")
    assert "scattergeo" in read(built, "rise.html") and "holds no JSON object" in read(built, "rise.html")
    assert "this result has no figure" in read(built, "lime.html").lower()
    assert "are left out: no-such-study" in read(built, "index.html")


def test_a_missing_folder_of_results_is_said(tmp_path):
    built = gallery([tmp_path / "nowhere"], tmp_path / "site").parent
    assert f"There is no folder {tmp_path / 'nowhere'}" in read(built, "index.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        gallery(tmp_path, tmp_path / "file")


def test_hostile_text_in_every_field_is_only_text(site):
    bad = HOSTILE[0]
    facts = verdict_facts("snip", ["holds"], seed=bad, device=bad, date=bad, changed=[bad], versions={bad: bad})
    texts = ("statement", "observable", "unit", "expects", "source", "reason", "note", "doubt", "amended", "scale")
    facts["claims"] = [each | dict.fromkeys(texts, bad) for each in facts["claims"]]
    facts["claims"].append(facts["claims"][0] | {"id": bad})
    known = dict.fromkeys(("platform", "machine", "engine", "jobs"), bad)
    drawn = go.Figure(go.Scatter(x=[bad], y=[1], name=bad)).update_layout(title=bad)
    built = site(facts, drawn=drawn, parameters={bad: [bad, {bad: bad}]}, **known)
    for name in ("snip.html", "index.html"):
        text = (built / name).read_text(encoding="utf-8")
        assert "<img" not in text and text.count("</script>") == text.count("<script")
    assert "&lt;img src=x onerror=alert(1)&gt;" in read(built, "snip.html")


def test_recorded_runs_are_shown_beside_the_papers(site, runs, tmp_path):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text("{}")
    built = site(runs=[runs[0].parent, tmp_path / "damaged"])
    assert "href='runs/run-plain.html'" in read(built, "index.html")
    assert "damaged has format None" in read(built, "index.html")
    assert (built / "runs" / "run-plain.html").is_file() and "All papers" in read(built / "runs", "index.html")


def test_a_figure_keeps_its_numbers_and_simple_markup_and_loses_what_loads_or_links(tmp_path):
    drawn = figure().update_layout(title="a<sub>1</sub> <a href='https://x.org'>x</a> 1 < 2", updatemenus=[
        {"buttons": [{"label": "log", "method": "relayout", "args": [{"yaxis.type": "log"}]}]},
        {"buttons": [{"label": "go", "method": "animate", "args": [None]}]},
    ])  # fmt: skip
    drawn.add_layout_image(source="https://x.org/a.png")
    file = tmp_path / "figure.json"
    file.write_text(drawn.to_json())
    read = read_figure(file)
    assert read["layout"]["title"]["text"] == "a<sub>1</sub> &lt;a href='https://x.org'>x&lt;/a> 1 &lt; 2"
    assert "x.org/a.png" not in json.dumps(read) and "template" not in read["layout"]
    assert [menu["buttons"][0]["label"] for menu in read["layout"]["updatemenus"]] == ["log"]
    values = np.frombuffer(base64.b64decode(read["data"][0]["y"]["bdata"]), read["data"][0]["y"]["dtype"])
    np.testing.assert_array_equal(values, drawn.data[0].y)


NO_FIGURES = [
    *("[]", "{", "[" * 99_999, '{"data": 1}', '{"data": [1]}', '{"data": [], "layout": []}'),
    '{"data": [{"type": "choropleth"}]}',
    '{"data": [{"type": ["scatter"]}]}',
]


@pytest.mark.parametrize("content", NO_FIGURES, ids=range(len(NO_FIGURES)))
def test_what_is_no_figure_is_refused_by_name(tmp_path, content):
    (tmp_path / "figure.json").write_text(content)
    with pytest.raises(InputError, match=r"figure\.json"):
        read_figure(tmp_path / "figure.json")


def test_the_snippet_offers_what_the_experiment_takes(monkeypatch, tmp_path):
    def page(source):
        folder = tmp_path / "studies" / "empirical"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "snip.py").write_text(source)
        monkeypatch.setattr(own, "files", lambda _: tmp_path)
        monkeypatch.setattr(own, "is_ready", lambda _: True)
        return own.snippet(entry("snip"))

    both = page("@study.experiment\ndef experiment(lab, *, model=1, dataset=2, seeds=3): ...")
    assert "phenoscope run snip --model mine:build --data mine:load" in both
    only = page("@study.experiment\ndef experiment(lab, *, dataset=2): ...")
    assert "--model" not in only and "--data mine:load" in only
    neither = page("@study.experiment\ndef run(lab, *, seeds=2): ...")
    assert "mine" not in neither and "phenoscope run snip" in neither
    assert "phenoscope run snip" in page("def broken(")
    monkeypatch.setattr(own, "is_ready", lambda _: False)
    assert "not built yet" in own.snippet(entry("snip"))


def test_the_snippets_program_builds_a_network_that_runs():
    import torch

    program = own._program(["model", "dataset"])
    names: dict = {}
    exec(program, names)
    built = names["build"]((1, 8, 8), 10)
    assert built(torch.zeros(1, 1, 8, 8)).shape == (1, 10) and callable(names["load"])
