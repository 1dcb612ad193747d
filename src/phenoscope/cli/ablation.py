"""Ablation and slimming of a recorded network, kept in RUN/ablation: what `ablate` and `demo` share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import xarray as xr
from torch import Tensor, nn

from .. import prune, record, train
from ..core.errors import InputError
from ..lab.progress import progress
from ..record import Run
from ..record.store import write_json


def ablation(
    run: Run,
    model: nn.Module,
    data: Any,
    *,
    epsilon: float,
    share: float,
    share_layers: list[str] | None,
    repeats: int,
    seed: int,
    title: str,
    quiet: bool,
) -> dict[str, xr.Dataset]:
    """Ablate the redundant filters (section IV.E) and the least-evolved ones, slim the network, and keep the tables.

    Args:
        share_layers: the layers whose least-evolved filters are ablated; `None` is all.

    Returns:
        `redundant`, `least_evolved` and `slimming`, as in `record.ablate` and `prune.slim_report`.
    """
    evaluate = partial(train.accuracy, data=data)
    redundant = record.redundant(run, epsilon=epsilon)
    least = record.least_evolved(run, share)
    if share_layers is not None:
        least = least.only(share_layers)
    tables = {}
    for name, filters, selection in [
        ("redundant", redundant, f"filters with a mean idle share of at least {1 - epsilon:g}"),
        ("least_evolved", least, f"the {share:.0%} of filters with the lowest mean distance"),
    ]:
        with progress(f"{title}: {name.replace('_', ' ')} filters", quiet) as advance:
            table = record.ablate(model, filters, evaluate, repeats=repeats, generator=seed, progress=advance)
        table.attrs["selection"] = selection
        tables[name] = table
        _keep(run, name, table)
    some = bool(sum(redundant.counts.values()))
    chosen = redundant if some else least
    example = first_inputs(data).to(next(model.parameters()).device)
    going = prune.removable(model, chosen, example)
    slim = prune.slim(model, chosen, example)
    table = prune.slim_report(model, slim, example, evaluate)
    table.attrs |= {
        "batch": len(example),
        "selection": tables["redundant" if some else "least_evolved"].attrs["selection"],
        "removed": json.dumps(
            {layer: [int(i) for i in indices] for layer, indices in going.filters.items() if len(indices)}
        ),
        "kept": json.dumps(
            {
                layer: {"filters": [int(i) for i in indices], "reason": str(reason)}
                for layer, (indices, reason) in going.kept.items()
            }
        ),
    }
    _keep(run, "slimming", table)
    return {**tables, "slimming": table}


def matching(run: Run, patterns: list[str] | None) -> list[str] | None:
    """The run's layers that match any of the patterns."""
    if not patterns:
        return None
    names = [name for name in run if run.layers[name].trainable and any(fnmatchcase(name, p) for p in patterns)]
    if not names:
        raise InputError(f"--layers {patterns[0]!r} matches none of {', '.join(list(run)[:6])} ...")
    return names


def first_inputs(data: Any, count: int = 32) -> Tensor:
    """A few examples, as a batch to count and to time with."""
    x = data[0] if isinstance(data, tuple) else next(iter(data))[0]
    return x[:count]


def facts(tables: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """The tables as plain numbers, for `--json`."""
    out: dict[str, Any] = {}
    for name in ("redundant", "least_evolved"):
        table = tables[name].drop_vars("random_drop")
        rows = [
            {
                "layer": str(layer),
                **{str(key): table[key].sel(layer=layer).item() for key in table if "layer" in table[key].dims},
            }
            for layer in table.layer.values
        ]
        out[name] = {"selection": table.attrs["selection"], "accuracy": table.accuracy.item(), "layers": rows}
    slim = tables["slimming"]
    out["slimming"] = {str(s): {str(k): slim[k].sel(state=s).item() for k in slim} for s in slim.state.values}
    out["slimming"] |= {"selection": slim.attrs["selection"], "batch": slim.attrs["batch"]}
    return out


def _keep(run: Run, name: str, table: xr.Dataset) -> None:
    folder = run.path / "ablation"
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{name}.json", {"dataset": table.to_dict()})
