"""The judge over a study's claims: which are judged at this preset, and what becomes of an observable that fails."""

from __future__ import annotations

import xarray as xr

from ..catalogue import Claim
from .judge import judge
from .result import JudgedClaim
from .study import Study
from .worker import account


def judged_claims(study: Study, data: xr.Dataset, preset: str) -> tuple[JudgedClaim, ...]:
    """Every registered claim of a study with its verdict on a result.

    Claims of GPU scale are judged by the gpu preset only; a smoke run shows values and judges nothing.
    """
    return tuple(_judged(study, claim, data, preset) for claim in study.entry.claims)


def _judged(study: Study, claim: Claim, data: xr.Dataset, preset: str) -> JudgedClaim:
    if claim.scale == "gpu" and preset != "gpu":
        return JudgedClaim(claim, "not run at this scale", reason="it speaks of the gpu preset's scale")
    try:
        observable = study.observables[claim.id](data)
        if "not_applicable" not in observable.attrs:
            check_unit(observable, claim.unit)
        found = judge(observable, claim.expects)
    except Exception as error:
        return JudgedClaim(claim, "failed", reason=account(error))
    verdict = "not judged" if preset == "smoke" and found.verdict != "not applicable" else found.verdict
    if found.n == 0:
        return JudgedClaim(claim, verdict, reason=found.reason)
    note = study.notes.get(claim.id, "") if verdict not in ("holds", "not judged") else ""
    return JudgedClaim(claim, verdict, found.estimate, found.low, found.high, found.n, found.reason, note)


def check_unit(observable: xr.DataArray, unit: str) -> None:
    """An observable has its claim's unit as its only dimension, or none where the unit is none.

    Raises:
        ValueError: it has others.
    """
    wanted = () if unit == "none" else (unit,)
    if observable.dims != wanted:
        raise ValueError(f"the claim's unit is {unit}; its observable has the dimensions {observable.dims}")
