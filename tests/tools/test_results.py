"""The README's table of results says what docs/results says."""

import importlib.util
from pathlib import Path

from phenoscope.catalogue import entries, is_ready

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("results", ROOT / "tools" / "results.py")
results = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(results)


def test_the_table_in_the_readme_is_the_one_that_the_kept_verdicts_give():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split(results.BEGIN)[1].split(results.END)[0].strip()
    assert shown == results.table(results.read(results.KEPT)).strip()


def test_every_study_has_kept_verdicts_at_the_default_preset_on_the_claims_as_registered():
    kept = {each["id"]: each for each in results.read(results.KEPT)}
    for entry in entries():
        if not is_ready(entry):
            continue
        found = kept[entry.id]
        assert found["preset"] == "default" and not found["changed"]
        registered = [(claim.id, claim.expects, claim.unit) for claim in entry.claims]
        assert [(claim["id"], claim["expects"], claim["unit"]) for claim in found["claims"]] == registered
        assert not {claim["verdict"] for claim in found["claims"]} & {"failed", "not judged"}
        for claim in found["claims"]:
            assert claim["verdict"] != "not run at this scale" or claim["scale"] == "gpu"
