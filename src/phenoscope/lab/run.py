"""Run a study."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xarray as xr

from .. import __version__
from ..core.errors import InputError
from .local import local
from .map import Engine, Keeper, Lab
from .parameters import check_names
from .progress import progress as progress_bar
from .provenance import provenance
from .result import JudgedClaim, Result, save, stored
from .sources import address as addressed
from .sources import study_sources
from .store import write_json
from .study import Study, study
from .verdicts import judged_claims

_OTHER_SEEDS = 3
_SECONDS_FOR_OTHERS = 60.0
ENGINES = ("local", "ray")


def run(
    id: str,
    *,
    preset: str = "default",
    seed: int = 0,
    jobs: int | None = None,
    engine: str = "local",
    address: str | None = None,
    fresh: bool = False,
    results: str | Path = "results",
    device: str | None = None,
    progress: bool = True,
    **parameters: Any,
) -> Result:
    """Run a study: its experiment, the verdicts on its claims, its figure.

    Each finished cell is kept under `results`, so a run that was interrupted goes on with what is left, and a result
    that is there already is not computed again. A claim without a unit is also valued under three other root seeds
    where that costs less than a minute.

    Args:
        id: the entry's id, as `phenoscope list` gives it.
        preset: "smoke", "default" or "gpu".
        seed: what all random choices derive from.
        jobs: processes at once; by default one a core.
        engine: "local", or "ray" on a cluster.
        address: of the cluster; by default one is started here.
        fresh: whether to ignore what is kept.
        results: the folder of results.
        device: where networks are trained; by default "cuda" for the gpu preset and "cpu" for the others.
        progress: whether to show it.
        parameters: of the experiment, in place of the preset's; `model` and `dataset` are your own factories.

    Raises:
        InputError: there is no such study, preset, parameter or engine.
        CellError: cells of the experiment failed.

    Example:
        `phenoscope.run("snip", seeds=10).claims`
    """
    found = study(id)
    found.check()
    check_names(parameters, found.parameters, id)
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs must be at least 1, not {jobs}")
    settings = found.values(preset) | parameters
    device = device or ("cuda" if preset == "gpu" else "cpu")
    _check_device(device, preset)
    sources = study_sources(found.conduct.__module__) + __version__
    key = _key(sources, settings, seed, device)
    folder = Path(results) / id / f"{preset}-{key}"
    make = functools.partial(
        Keeper, Path(results) / ".cells" / id, _engine(engine, jobs, address), sources, fresh=fresh
    )
    kept = None if fresh else stored(folder)
    if kept is not None:
        data, known = kept
    else:
        data, known = _conducted(found, settings, seed, device, make, Path(results), quiet=not progress)
        known |= {"preset": preset, "key": key, "changed": sorted(parameters), "engine": engine}
    claims = judged_claims(found, data, preset)
    if preset != "smoke":
        claims, known = _with_others(found, claims, settings, preset, seed, device, make, known, quiet=not progress)
    result = Result(found, preset, data, claims, known, folder)
    save(result)
    return result


def _conducted(
    found: Study,
    settings: dict[str, Any],
    seed: int,
    device: str,
    make: Callable[..., Keeper],
    results: Path,
    *,
    quiet: bool,
) -> tuple[xr.Dataset, dict[str, Any]]:
    """The experiment's result and where it comes from."""
    begun = time.perf_counter()
    with progress_bar(found.id, quiet) as advance, _told(results, found.id) as tell:

        def show(done: int, total: int, note: str) -> None:
            advance(done, total, note[:60])
            tell(done, total)

        keeper = make(progress=show)
        data = found.conduct(Lab(seed, device, keeper=keeper), **settings)  # type: ignore[misc]
    if not isinstance(data, xr.Dataset):
        raise InputError(f"the experiment of {found.id} must return an xarray.Dataset, not a {type(data).__name__}")
    facts = {"seed": seed, "device": device, "cells_reused": keeper.reused, "cell_seconds": round(keeper.seconds, 2)}
    return data, provenance(settings, **facts, seconds=round(time.perf_counter() - begun, 2))


def _with_others(
    found: Study,
    claims: tuple[JudgedClaim, ...],
    settings: dict[str, Any],
    preset: str,
    seed: int,
    device: str,
    make: Callable[..., Keeper],
    known: dict[str, Any],
    *,
    quiet: bool,
) -> tuple[tuple[JudgedClaim, ...], dict[str, Any]]:
    """The claims without a unit also valued under other root seeds, which have no interval to show their spread."""
    single = [claim.claim.id for claim in claims if claim.claim.unit == "none" and claim.estimate is not None]
    values: dict[str, list[float]] = known.get("others") or {}
    cost = max(known["seconds"], known["cell_seconds"] if known["cells_reused"] else 0)
    if not values and single and _OTHER_SEEDS * cost < _SECONDS_FOR_OTHERS:
        with progress_bar(f"{found.id}: under {_OTHER_SEEDS} other root seeds", quiet) as advance:
            for number in range(1, _OTHER_SEEDS + 1):
                advance(number - 1, _OTHER_SEEDS)
                data = found.conduct(Lab(seed + number, device, keeper=make()), **settings)  # type: ignore[misc]
                for claim in judged_claims(found, data, preset):
                    if claim.claim.id in single and claim.estimate is not None:
                        values.setdefault(claim.claim.id, []).append(claim.estimate)
    told = tuple(
        dataclasses.replace(claim, others=tuple(map(float, values[claim.claim.id])))
        if claim.claim.id in values
        else claim
        for claim in claims
    )
    return told, known | {"others": values}


def _key(sources: str, settings: dict[str, Any], seed: int, device: str) -> str:
    known = json.dumps([sources, addressed(settings), seed, device], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()[:12]


def _engine(name: str, jobs: int | None, cluster: str | None) -> Engine:
    if name == "local":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return functools.partial(local, jobs=jobs or cores)
    if name == "ray":
        from .ray import on_ray

        return functools.partial(on_ray, address=cluster, jobs=jobs)
    raise InputError(f"there is no engine {name!r}; engines are {', '.join(ENGINES)}")


def _check_device(device: str, preset: str) -> None:
    if device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            wish = "the gpu preset" if preset == "gpu" else f"device {device}"
            raise InputError(f"{wish} needs CUDA, which is not here; name another device or preset")


@contextmanager
def _told(results: Path, id: str) -> Iterator[Callable[[int, int], None]]:
    """Says in a small file how far a run is, for pages that watch it."""
    file = results / ".running" / f"{id}-{os.getpid()}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    begun = time.time()

    def tell(done: int, total: int) -> None:
        with suppress(OSError):  # a full disk must not end the run
            write_json(file, {"id": id, "done": done, "total": total, "started": begun, "updated": time.time()})

    try:
        yield tell
    finally:
        file.unlink(missing_ok=True)
