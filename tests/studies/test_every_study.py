"""What every study must keep to: an observable a claim, a smoke run that works, the same bits on any processes."""

import pytest
import xarray as xr

from phenoscope.catalogue import entries, is_ready
from phenoscope.lab import run, study

READY = [each.id for each in entries() if is_ready(each)]


@pytest.mark.parametrize("id", READY)
def test_every_registered_claim_has_its_observable_and_every_parameter_its_help(id):
    found = study(id)
    found.check()
    assert found.conduct.__doc__ and all(each.help for each in found.parameters.values())
    for preset in ("smoke", "default", "gpu"):
        found.values(preset)


@pytest.mark.parametrize("id", READY)
def test_the_smoke_preset_runs_and_gives_the_same_bits_on_one_process_as_on_two(id, tmp_path):
    alone = run(id, preset="smoke", jobs=1, results=tmp_path / "one", progress=False)
    beside = run(id, preset="smoke", jobs=2, results=tmp_path / "two", progress=False)
    xr.testing.assert_identical(alone.data, beside.data)
    for claim in alone.claims:
        assert claim.verdict in ("not judged", "not applicable", "not run at this scale"), (
            claim.claim.id,
            claim.reason,
        )
    assert alone.figure().data
    assert (alone.path / "figure.json").stat().st_size < 5_000_000
