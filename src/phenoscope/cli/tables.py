"""Tables for the terminal."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr
from rich.table import Table
from rich.text import Text

from ..record import Run


def layer_table(run: Run, names: list[str], title: str) -> Table:
    """Time-means of the measures of some layers."""
    table = _table(title, "layer", "filters", "changed S", "idle Z", "distance per weight", "distance D")
    means = run.means.sel(layer=names).mean("step")
    for name in names:
        at = means.sel(layer=name)
        values = [f"{at.changed:.3f}", f"{at.idle:.3f}", f"{at.distance_per_weight:.2e}", f"{at.distance:.2e}"]
        table.add_row(Text(name), str(len(run.layers[name])), *values)
    return table


def differences_table(data: xr.Dataset, names: list[str], most: int = 30) -> Table:
    """Two runs layer by layer; of many layers those whose changed shares differ most, in network order."""
    gaps = np.nan_to_num(np.abs(np.diff(data["changed"], axis=0)[0]), nan=-1.0)
    chosen = np.sort(np.argsort(-gaps, kind="stable")[:most])
    rest = data.sizes["layer"] - len(chosen)
    title = f"{names[0]} | {names[1]}, up to step {data.attrs['until']}"
    title += f" (the {most} of {data.sizes['layer']} layers that differ most)" if rest else ""
    table = _table(title, "layer", "changed S", "idle Z", "distance per weight", "settled at", "likeness", "apart")
    for index in chosen:
        at = data.isel(layer=int(index))
        pairs = [(at[key].values, form) for key, form in _PAIRS]
        cells = [" | ".join("not" if np.isnan(v) else form.format(v) for v in pair) for pair, form in pairs]
        single = ["–" if np.isnan(at[key]) else f"{float(at[key]):.2f}" for key in ("likeness", "apart")]
        table.add_row(Text(str(at.layer.item())), *cells, *single)
    return table


_PAIRS = [("changed", "{:.3f}"), ("idle", "{:.3f}"), ("distance_per_weight", "{:.2e}"), ("settled", "{:.0f}")]


def ablation_table(table: xr.Dataset) -> Table:
    """Accuracy lost by zeroing filters, in percentage points; layers without chosen filters are left out."""
    title = f"Zeroing {table.attrs['selection']}: accuracy lost, in points (before: {float(table.accuracy):.2%})"
    out = _table(title, "layer", "zeroed", "these", "random (95 % interval)", "smallest norm")
    rows: list[Any] = [layer for layer in table.layer.values if int(table["count"].sel(layer=layer))]
    for layer in rows:
        at = table.sel(layer=layer)
        random = f"{100 * at.random_mean:.2f}"
        if np.isfinite(at.random_low):  # one draw has no interval
            random += f" ({100 * at.random_low:.2f} to {100 * at.random_high:.2f})"
        out.add_row(
            Text(str(layer)),
            f"{int(at['count'])} of {int(at['filters'])}",
            f"{100 * at['drop']:.2f}",
            random,
            f"{100 * at.norm_drop:.2f}",
        )
    if not rows:
        out.add_row("none", "0", "", "", "")
    return out


def slimming_table(table: xr.Dataset) -> Table:
    """The network before and after its filters are cut out."""
    removed = sum(len(indices) for indices in json.loads(table.attrs["removed"]).values())
    kept = sum(len(entry["filters"]) for entry in json.loads(table.attrs["kept"]).values())
    title = f"Cutting out {table.attrs['selection']}: {removed} removed, {kept} kept"
    out = _table(title, "", "parameters", "FLOPs", f"forward, batch of {table.attrs['batch']}", "accuracy")
    for state in table.state.values:
        at = table.sel(state=state)
        out.add_row(
            str(state),
            f"{int(at.parameters):,}",
            f"{int(at.flops):,}",
            f"{float(at.forward_ms):.2f} ms",
            f"{float(at.accuracy):.2%}",
        )
    return out


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=Text(title), title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table
