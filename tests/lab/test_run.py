"""A study run as a whole: verdicts, what lies on disk, what is used again, what is refused."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from tests.lab import example

import phenoscope
from phenoscope.catalogue import entries, entry
from phenoscope.core.errors import InputError
from phenoscope.lab import Study, last_result, run, states, study, tally
from phenoscope.lab.verdicts import judged_claims


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    monkeypatch.setattr(sys.modules["phenoscope.lab.run"], "study", lambda id: example.study)


def verdicts(result):
    return [claim.verdict for claim in result.claims]


def test_a_run_judges_every_registered_claim_and_keeps_everything_on_disk(tmp_path):
    result = run("snip", results=tmp_path, jobs=1, progress=False)
    assert verdicts(result) == ["holds", "refuted", "not applicable"]
    large, negative, nothing = result.claims
    assert large.n == 5 and large.low <= large.estimate <= large.high and abs(large.estimate - 1) < 0.05
    assert negative.note == "because the numbers were planted so" and not large.note
    assert nothing.reason == "nothing qualified" and nothing.estimate is None
    folder = result.path
    assert folder.parent == tmp_path / "snip" and folder.name.startswith("default-")
    assert {file.name for file in folder.iterdir()} == {
        "result.zarr",
        "verdict.json",
        "provenance.json",
        "figure.json",
    }
    kept = json.loads((folder / "verdict.json").read_text())
    assert kept == json.loads(json.dumps(result.facts())) and kept["id"] == "snip" and kept["seed"] == 0
    assert {"id", "statement", "expects", "estimate", "low", "high", "n", "verdict", "note"} <= kept["claims"][0].keys()
    assert json.loads((folder / "provenance.json").read_text())["parameters"]["shift"] == 1.0
    assert json.loads((folder / "figure.json").read_text())["data"]
    assert isinstance(result.figure(), go.Figure) and "SNIP" in result._repr_html_()
    assert not list(tmp_path.glob(".running/*"))


def test_the_same_run_again_computes_nothing_and_fresh_computes_all(tmp_path, monkeypatch):
    first = run("snip", results=tmp_path, jobs=1, progress=False)
    monkeypatch.setattr(example.study, "conduct", None)
    with pytest.raises(InputError, match="no experiment"):
        run("snip", results=tmp_path, progress=False)
    counted = []

    def counting(lab, *, model=None, shift: float = 1.0, seeds: int = 5, names: tuple[str, ...] = ("a", "b")):
        counted.append(1)
        return example.experiment(lab, shift=shift, seeds=seeds)

    counting.__module__ = example.experiment.__module__
    monkeypatch.setattr(example.study, "conduct", counting)
    again = run("snip", results=tmp_path, jobs=1, progress=False)
    assert not counted and again.path == first.path
    xr.testing.assert_identical(again.data, first.data)
    run("snip", results=tmp_path, jobs=1, progress=False, fresh=True)
    assert len(counted) == 1


def test_more_seeds_do_only_the_cells_that_are_new(tmp_path):
    run("snip", results=tmp_path, jobs=1, progress=False, seeds=3)
    more = run("snip", results=tmp_path, jobs=1, progress=False, seeds=5)
    assert more.provenance["cells_reused"] == 3 and more.provenance["changed"] == ["seeds"]


def test_a_damaged_result_is_made_again(tmp_path):
    first = run("snip", results=tmp_path, jobs=1, progress=False)
    (first.path / "provenance.json").write_text("{")
    again = run("snip", results=tmp_path, jobs=1, progress=False)
    assert verdicts(again) == verdicts(first) and json.loads((again.path / "provenance.json").read_text())


def test_smoke_runs_are_never_judged(tmp_path):
    result = run("snip", preset="smoke", results=tmp_path, jobs=1, progress=False)
    assert verdicts(result) == ["not judged", "not judged", "not applicable"]
    assert result.data.sizes["seed"] == 2 and result.claims[0].estimate is not None


def test_the_root_seed_decides_every_number(tmp_path):
    values = [
        run("snip", seed=seed, results=tmp_path / str(place), jobs=1, progress=False).data.value.values
        for place, seed in enumerate([0, 0, 1])
    ]
    assert (values[0] == values[1]).all() and (values[0] != values[2]).all()


@pytest.mark.parametrize(
    "given, words",
    [
        ({"sedes": 3}, "snip has no parameter 'sedes'; did you mean seeds"),
        ({"preset": "large"}, "presets are smoke, default, gpu"),
        ({"engine": "slurm"}, "engines are local, ray"),
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"preset": "gpu"}, "the gpu preset needs CUDA"),
        ({"shift": object()}, "cannot be a parameter"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(tmp_path, given, words):
    import torch

    if given.get("preset") == "gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU here, so the gpu preset can be run")
    with pytest.raises(InputError, match=words):
        run("snip", results=tmp_path, progress=False, **given)


def with_claims(*claims):
    """A study of an entry whose claims are these, with the observables given beside them."""

    class Planted(Study):
        entry = dataclasses.replace(globals()["entry"]("snip"), claims=tuple(claim for claim, _ in claims))

    made = Planted("snip")
    for claim, observable in claims:
        made.claim(claim.id)(lambda result, value=observable: value)
    return made


def claim(id, **changes):
    return dataclasses.replace(entry("snip").claims[0], id=id, **changes)


def test_claims_of_gpu_scale_are_judged_by_the_gpu_preset_only():
    made = with_claims((claim("big", scale="gpu"), xr.DataArray([1.0, 1.1, 1.2], dims="seed")))
    (default,) = judged_claims(made, xr.Dataset(), "default")
    (gpu,) = judged_claims(made, xr.Dataset(), "gpu")
    assert default.verdict == "not run at this scale" and default.estimate is None and gpu.verdict == "holds"


@pytest.mark.parametrize(
    "value, words",
    [
        (xr.DataArray([1.0, np.nan], dims="seed"), "nan at seed 1"),
        (xr.DataArray([1.0, 2.0], dims="image"), "unit is seed"),
        (xr.DataArray(1.0), "unit is seed"),
        (3.0, "AttributeError"),
    ],
)
def test_an_observable_that_cannot_be_judged_is_failed_and_the_cell_is_named(value, words):
    if isinstance(value, xr.DataArray) and value.ndim:
        value = value.assign_coords({value.dims[0]: range(value.size)})
    made = with_claims((claim("odd"), value), (claim("fine"), xr.DataArray([1.0, 1.1, 1.2], dims="seed")))
    odd, fine = judged_claims(made, xr.Dataset(), "default")
    assert odd.verdict == "failed" and words in odd.reason and fine.verdict == "holds"


def test_infinity_without_a_unit_is_judged_and_written_as_text():
    made = with_claims((claim("endless", unit="none", expects="> 10"), xr.DataArray(math.inf)))
    (endless,) = judged_claims(made, xr.Dataset(), "default")
    from phenoscope.lab.store import strict

    assert endless.verdict == "holds" and strict(endless.facts())["estimate"] == "Infinity"


def test_a_claim_without_a_unit_is_also_valued_under_three_other_root_seeds(tmp_path, monkeypatch):
    made = with_claims((claim("single", unit="none", expects="> 10"), None))
    made.observables["single"] = lambda result: result.square[0]
    made.conduct, made.draw = example.study.conduct, example.study.draw
    monkeypatch.setattr(sys.modules["phenoscope.lab.run"], "study", lambda id: made)
    result = run("snip", seed=7, results=tmp_path, jobs=1, progress=False)
    assert result.claims[0].others == (8.0, 9.0, 10.0) and result.claims[0].estimate == 7.0
    assert result.claims[0].verdict == "refuted"


def test_a_study_without_an_observable_for_a_claim_or_with_one_too_many_is_refused():
    made = Study("snip")
    with pytest.raises(InputError, match="no experiment"):
        made.check()
    made.conduct, made.draw = example.experiment, example.figure
    with pytest.raises(InputError, match="beats-random is registered and has no observable"):
        made.check()
    for each in entry("snip").claims:
        made.claim(each.id)(example.is_large)
    made.check()
    made.claim("invented")(example.is_large)
    with pytest.raises(InputError, match="invented is not registered"):
        made.check()
    with pytest.raises(InputError, match="two observables"):
        made.claim("invented")(example.is_large)


def test_an_experiment_with_positional_or_reserved_parameters_is_refused():
    with pytest.raises(InputError, match="keyword-only"):
        Study("snip").experiment(lambda lab, seeds=3: None)
    with pytest.raises(InputError, match="a name that every run has"):
        Study("snip").experiment(lambda lab, *, jobs=3: None)
    with pytest.raises(InputError, match="preset smoke sets sedes"):
        Study("snip", smoke={"sedes": 1}).experiment(lambda lab, *, seeds=3: None)


def test_parameters_carry_the_help_of_the_docstring():
    known = example.study.parameters
    assert known["shift"].help == "where the numbers lie." and known["names"].help == "how many, and of what."


def test_an_entry_without_a_study_says_so():
    missing = next(
        each.id for each in entries() if states([each], __import__("pathlib").Path())[each.id].status == "specified"
    )
    with pytest.raises(InputError, match="has no study yet"):
        study(missing)


def test_the_last_result_is_the_newest_and_a_smoke_run_only_if_there_is_no_other(tmp_path):
    for name, preset, date in (
        ("a", "default", "2026-01-01"),
        ("b", "default", "2026-02-01"),
        ("c", "smoke", "2026-03-01"),
    ):
        (tmp_path / "snip" / name).mkdir(parents=True)
        content = {"preset": preset, "date": date, "claims": [{"verdict": "holds"}, {"verdict": "refuted"}]}
        (tmp_path / "snip" / name / "verdict.json").write_text(json.dumps(content))
    (tmp_path / "snip" / "d").mkdir()
    (tmp_path / "snip" / "d" / "verdict.json").write_text("[1")
    last = last_result(tmp_path / "snip")
    assert last["date"] == "2026-02-01" and tally(last) == "1 holds, 1 refuted"


def test_run_is_a_public_name():
    assert phenoscope.run is run


def test_two_processes_that_run_the_same_study_at_once_both_end_with_a_whole_result(tmp_path):
    program = (
        "import sys\nimport phenoscope.lab\nfrom tests.lab import example\n"
        "run = sys.modules['phenoscope.lab.run']\nrun.study = lambda id: example.study\n"
        f"found = run.run('snip', results={str(tmp_path)!r}, jobs=2, progress=False, fresh=True)\n"
        "assert [claim.verdict for claim in found.claims] == ['holds', 'refuted', 'not applicable']\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    both = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    (folder,) = (each for each in (tmp_path / "snip").iterdir())  # nothing half-written beside it
    assert json.loads((folder / "verdict.json").read_text())["id"] == "snip"
    again = run("snip", results=tmp_path, jobs=1, progress=False)
    assert again.path == folder and len(list((tmp_path / ".cells" / "snip").iterdir())) == 5
