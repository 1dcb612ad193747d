import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from phenoscope.core.errors import InputError
from phenoscope.record import open_run
from phenoscope.report import run_report


@pytest.fixture
def bare(runs, tmp_path) -> Path:
    """A copy of a run without snapshots, ablation, image and summary."""
    path = tmp_path / "bare"
    shutil.copytree(runs[0], path)
    shutil.rmtree(path / "snapshots")
    shutil.rmtree(path / "ablation")
    for name in ("image.npy", "summary.json"):
        (path / name).unlink()
    return path


def page(path: Path) -> str:
    """A page without the numbers of its figures."""
    return re.sub(r'<script type="application/json".*?</script>', "", path.read_text(encoding="utf-8"), flags=re.S)


def test_a_folder_of_pages_with_one_copy_of_plotly(report):
    files = sorted(file.name for file in report.iterdir())
    assert files == ["index.html", "page.js", "plotly.min.js", "run-img-src-x-onerror-alert-2.html", "run-plain.html"]
    for file in report.glob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert len(text) < 3_000_000 and text.count('src="plotly.min.js"') == 1
        assert not re.search(r"""(src|href)=["'](https?:)?//""", text)  # nothing from a network


def test_figures_are_json_that_parses_and_closes_no_tag(report):
    for file in report.glob("*.html"):
        found = re.findall(r'<script type="application/json" id="([a-z0-9-]+)">(.*?)</script>', file.read_text("utf-8"))
        assert found and len({name for name, _ in found}) == len(found)
        for _, content in found:
            assert not set("<>&\u2028\u2029") & set(content)
            assert {"data", "layout"} <= json.loads(content).keys()


def test_hostile_names_appear_only_as_text(report):
    for file in report.glob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert "<img" not in text and '<a href="javascript' not in text and "&lt;img" in text


def test_the_page_shows_facts_tables_and_results(report):
    text = page(report / "run-plain.html")
    facts = ("3 layers, 18 filters", "98.70 %", "A note.", "2 of 6")
    slimming = (
        "1\u202f234\u202f567",
        "−99.9 %",
        "−5.00 points",
        "2 of first: coupled &lt;/script&gt;",
        "1 of third",
        "Cut out: some",
    )
    for part in facts + slimming:
        assert part in text, part
    assert text.count("<figure") == 6 and "class='note'" not in text
    assert "Quoted, not measured here" not in text  # another network than the paper's


def test_every_missing_part_says_how_to_get_it(bare, tmp_path):
    run_report(bare, tmp_path / "report")
    text = page(tmp_path / "report" / "run-bare.html")
    assert text.count("<figure") == 3 and text.count("class='note'") == 4
    assert "<code>phenoscope ablate RUN --model pkg:build --data pkg:load</code>" in text
    assert "record with snapshots=" in text


def test_damaged_files_are_named_and_the_rest_is_shown(bare, tmp_path):
    (bare / "ablation").mkdir()
    for name in ("redundant", "slimming"):
        (bare / "ablation" / f"{name}.json").write_text('{"dataset": 3}')
    (bare / "ablation" / "least_evolved.json").write_text('{"dataset": {"coords": {}, "data_vars": {}}}')
    (bare / "summary.json").write_text("[")
    run_report(bare, tmp_path / "report")
    text = page(tmp_path / "report" / "run-bare.html")
    for name in ("redundant", "least_evolved", "slimming"):
        assert f"{name}.json" in text
    assert text.count("<figure") == 3


def test_a_damaged_image_is_named(runs, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(runs[0], path)
    (path / "image.npy").write_bytes(b"\x93NUMPY damaged")
    run_report(path, tmp_path / "report")
    assert "image.npy cannot be read" in page(tmp_path / "report" / "run-run.html")


def test_a_given_image_goes_before_the_runs_own(runs, report, tmp_path):
    file = tmp_path / "own.png"
    Image.new("RGB", (40, 20), (200, 30, 30)).save(file)
    run_report(runs[0], tmp_path / "report", image=file)
    assert (tmp_path / "report" / "run-plain.html").read_bytes() != (report / "run-plain.html").read_bytes()


def test_a_run_without_records_still_has_pages(runs, tmp_path, bare):
    (bare / "state.json").write_text(json.dumps({"records": 0, "rows": 0, "scalars": [], "stride": 1}))
    for file in bare.glob("journal-*"):
        file.unlink()
    run_report(bare, tmp_path / "report")
    assert "no records yet" in page(tmp_path / "report" / "index.html")


def test_runs_whose_names_give_one_file_name_get_two_pages(runs, tmp_path):
    for name in ("a b", "a-b"):
        shutil.copytree(runs[0], tmp_path / name)
    run_report([tmp_path / "a b", open_run(tmp_path / "a-b")], tmp_path / "report")
    assert len(list((tmp_path / "report").glob("run-*.html"))) == 2


def test_what_is_no_run_and_what_cannot_be_written_are_errors(runs, tmp_path):
    with pytest.raises(InputError, match="nothing"):
        run_report([tmp_path / "nothing"], tmp_path / "report")
    with pytest.raises(InputError, match="no run"):
        run_report([], tmp_path / "report")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        run_report(runs[:1], tmp_path / "file")
