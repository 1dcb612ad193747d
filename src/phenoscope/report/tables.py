"""Tables of a page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import xarray as xr

from .theme import text


def table(head: Sequence[object], rows: Sequence[Sequence[object]], caption: str = "") -> str:
    """A table in a box of its own that scrolls sideways; the first column heads its rows.

    Args:
        head, rows: plain values; one that is `Markup` is taken as HTML.
        caption: plain text.
    """
    title = f"<p class='caption'>{text(caption)}</p>\n" if caption else ""
    top = "".join(f"<th scope='col'>{_cell(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th scope='row'>{_cell(row[0])}</th>{''.join(f'<td>{_cell(cell)}</td>' for cell in row[1:])}</tr>\n"
        for row in rows
    )
    whole = f"<table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f"{title}<div class='scroll' tabindex='0'>{whole}</div>\n"


class Markup(str):
    """HTML that is safe as it stands."""


def ablation_table(data: xr.Dataset) -> str:
    """Drops by layer in percentage points; layers of which nothing was zeroed are only counted."""
    rows = []
    for layer in data["layer"].values:
        at = data.sel(layer=layer)
        if int(at["count"]):
            low, high = points(at["random_low"]), points(at["random_high"])
            random = f"{points(at['random_mean'])} [{low}, {high}]"
            zeroed = f"{int(at['count'])} of {int(at['filters'])}"
            rows.append([layer, zeroed, points(at["drop"]), random, points(at["norm_drop"])])
    if not rows:
        return ""
    caption = "Drop of accuracy in percentage points"
    if "accuracy" in data:
        caption += f"; before: {percent(float(data['accuracy']))}"
    head = ["layer", "zeroed", "these filters", "random [95 %]", "smallest L1 norm"]
    rest = data.sizes["layer"] - len(rows)
    layers = "layer" if rest == 1 else "layers"
    aside = f"<p class='aside'>In {rest} other {layers} there was nothing to zero.</p>\n" if rest else ""
    return table(head, rows, caption) + aside


def slimming_table(data: xr.Dataset) -> str:
    """Size, work, time and accuracy before and after, and which filters coupling kept."""
    rows = []
    for name, title, show in [
        ("parameters", "parameters", whole),
        ("flops", "FLOPs of a forward pass", whole),
        ("forward_ms", "forward time, ms", lambda value: f"{value:.3g}"),
        ("accuracy", "accuracy", percent),
    ]:
        if name not in data:
            continue
        before, after = (float(data[name].sel(state=state)) for state in ("before", "after"))
        change = points(after - before) if name == "accuracy" else relative(before, after)
        rows.append([title, show(before), show(after), change + (" points" if name == "accuracy" else "")])
    said = [f"Cut out: {data.attrs['selection']}"] if data.attrs.get("selection") else []
    said += [f"a forward pass of {data.attrs['batch']} examples"] if data.attrs.get("batch") else []
    return table(["", "before", "after", "change"], rows, "; ".join(said)) + "".join(
        _by_layer(title, data.attrs.get(title.lower())) for title in ("Removed", "Kept")
    )


def points(share: object) -> str:
    """A difference of shares in percentage points, with its sign."""
    value = round(100 * float(share), 2)  # type: ignore[arg-type]
    return "–" if math.isnan(value) else f"{value:+.2f}".replace("-", "−") if value else "0.00"


def percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.2f} %"


def whole(value: float) -> str:
    """A count with thin spaces between its thousands."""
    return "–" if not math.isfinite(value) else f"{value:,.0f}".replace(",", "\u202f")


def relative(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f} %".replace("-", "−") if before else "–"


def _by_layer(title: str, attribute: object) -> str:
    """How many filters of which layers, to be unfolded.

    Args:
        attribute: JSON of {layer: filters} or of {layer: {"filters": filters, "reason": text}}.
    """
    try:
        chosen = json.loads(attribute) if isinstance(attribute, str) else {}
    except ValueError:
        chosen = {}
    items, total = "", 0
    for layer, entry in chosen.items() if isinstance(chosen, dict) else ():
        filters, reason = (entry.get("filters"), entry.get("reason")) if isinstance(entry, dict) else (entry, None)
        if isinstance(filters, list) and filters:
            total += len(filters)
            items += f"<li>{len(filters)} of {text(layer)}{f': {text(reason)}' if reason else ''}</li>\n"
    if not total:
        return ""
    return f"<details><summary>{title}: {whole(total)} filters</summary>\n<ul>{items}</ul></details>\n"


def _cell(value: object) -> str:
    return str(value) if isinstance(value, Markup) else text(value)
