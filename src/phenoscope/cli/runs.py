"""report, diff, evolve, ablate: the commands on runs that exist."""

from __future__ import annotations

import json as json_module
import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console

from .. import record
from ..core.errors import InputError
from ..lab.progress import progress
from ..record.figures.names import named
from ..record.tensors import load_tensors
from .ablation import ablation, facts, matching
from .objects import build_model, checked_device, load_data
from .tables import ablation_table, differences_table, slimming_table


def report(runs: list[Path], output: Path, *, image: Path | None, json: bool) -> None:
    from ..report import run_report

    index = run_report(runs, output, image=image)
    _say({"report": str(index)}, json, f"The report is {index}")


def diff(first: Path, second: Path, output: Path, *, threshold: float, window: int, json: bool) -> None:
    from ..report.diff_page import write_diff

    runs = record.open_run(first), record.open_run(second)
    data = record.differences(*runs, threshold=threshold, window=window)
    index = write_diff(runs, data, output)
    if json:
        print(json_module.dumps({"runs": [str(first), str(second)], **_compared(data), "page": str(index)}, indent=1))
        return
    console = Console()
    console.print(differences_table(data, [name for name, _ in named(runs)]))
    for remark in data.attrs["remarks"]:
        console.print(f"- {remark}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"The page is {index}", highlight=False, markup=False, soft_wrap=True)


def _compared(data: xr.Dataset) -> dict[str, Any]:
    """The facts of a comparison; what is missing is null."""
    layers = [
        {"layer": str(name), **{key: _plain(data[key].sel(layer=name)) for key in data.data_vars}}
        for name in data["layer"].values
    ]
    return {"until": data.attrs["until"], "remarks": data.attrs["remarks"], "layers": layers}


def _plain(values: xr.DataArray) -> Any:
    numbers = [value if math.isfinite(value) else None for value in np.atleast_1d(values).tolist()]
    return numbers if values.ndim else numbers[0]


def evolve(
    checkpoints: Path,
    output: Path,
    *,
    threshold: float,
    model: str | None,
    order: str,
    skip_bad: bool,
    overwrite: bool,
    json: bool,
) -> None:
    network = build_model(model) if model else None
    with progress(f"Reading {checkpoints}", json) as advance:
        run = record.evolve(
            checkpoints,
            output,
            threshold=threshold,
            model=network,
            order=order,
            skip_bad=skip_bad,
            overwrite=overwrite,
            progress=advance,
        )
    made = {
        "run": str(run.path),
        "layers": len(run),
        "records": len(run.steps),
        "steps": [int(s) for s in run.steps],
        "axes": run.metadata.get("axes", "of the model"),
    }
    note = (
        ""
        if network is not None
        else (
            "\nWithout --model the axes are assumed: filters on dimension 0, channels on dimension 1 of every weight."
        )
    )
    _say(
        made, json, f"{run.path}: {len(run)} layers, {len(run.steps)} records{note}\nNext: phenoscope report {run.path}"
    )


def ablate(
    path: Path,
    *,
    model: str,
    data: str,
    checkpoint: Path | None,
    epsilon: float,
    share: float,
    repeats: int,
    patterns: list[str] | None,
    device: str,
    seed: int,
    json: bool,
) -> None:
    run = record.open_run(path)
    where = checked_device(device)
    network, held_out = build_model(model), load_data(data)
    _load(network, _state(checkpoint) if checkpoint else run.final(), checkpoint or run.path)
    tables = ablation(
        run,
        network.to(where),
        held_out,
        epsilon=epsilon,
        share=share,
        share_layers=matching(run, patterns),
        repeats=repeats,
        seed=seed,
        title=path.name,
        quiet=json,
    )
    if json:
        print(json_module.dumps({"run": str(path), **facts(tables)}, indent=1))
        return
    console = Console()
    for name in ("redundant", "least_evolved"):
        console.print(ablation_table(tables[name]))
    console.print(slimming_table(tables["slimming"]))
    console.print(
        f"Kept in {path / 'ablation'}; see it with: phenoscope report {path}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _state(checkpoint: Path) -> dict[str, Any]:
    if not checkpoint.is_file():
        raise InputError(f"--checkpoint {checkpoint}: there is no such file")
    if checkpoint.suffix == ".safetensors":
        return load_tensors(checkpoint)
    from ..record.saved.formats import read_file

    return read_file(checkpoint).weights


def _load(network: Any, state: dict[str, Any], source: Path) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise InputError(f"the weights of {source} do not fit the model of --model: {first}") from error


def _say(facts: dict[str, Any], json: bool, text: str) -> None:
    if json:
        print(json_module.dumps(facts, indent=1))
    else:
        Console().print(text, highlight=False, markup=False, soft_wrap=True)
