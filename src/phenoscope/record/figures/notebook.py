"""A run as a notebook shows it: a small figure and a table, in HTML that needs no library and no script."""

from __future__ import annotations

import html
import math
import uuid
import warnings
from collections.abc import Sequence

import numpy as np

from ..run import Run
from .bins import bin_means, edges
from .names import label, readable
from .palette import by_depth, spread

_MEASURES = [("changed", "changed share"), ("idle", "idle share"), ("distance_per_weight", "log10 distance per weight")]
_LINES, _ROWS, _POINTS = 8, 12, 60
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 560, 200, 46, 8, 26


def run_html(run: Run) -> str:
    """Three small figures, of which a row of buttons shows one, and a table of the layers.

    The lines are the means of up to eight layers spread over the depth, over at most 60 bins of records; hovering
    tells a bin's values. The table shows up to twelve layers, also spread. It works without a network, and where
    scripts are not trusted.
    """
    names = list(run.layers)
    body = f"<p style='margin:0 0 .4em'><b>{_text(readable(run.path.name))}</b> {_text(_facts(run))}</p>"
    if not len(run.steps):
        return f"<div>{body}</div>"
    key = f"run{uuid.uuid4().hex[:10]}"  # outputs of one notebook share a page
    shown = spread(range(len(names)), _LINES)
    colors = [by_depth(len(names))[i] for i in shown]
    style, buttons, figures = "", "", ""
    for index, (measure, title) in enumerate(_MEASURES):
        button, figure = f"{key}b{index}", f"{key}f{index}"
        style += f"#{figure}{{display:none}}#{button}:checked~#{figure}{{display:block}}"
        checked = " checked" if index == 0 else ""
        buttons += (
            f"<input type='radio' name='{key}' id='{button}'{checked}><label for='{button}'> {title}</label>&emsp;"
        )
        figures += f"<div id='{figure}'>{_drawing(run, measure, title, shown, colors)}</div>"
    legend = " ".join(
        f"<span style='white-space:nowrap'><span style='color:{color}'>&#9632;</span> {label(names[i])}</span>"
        for i, color in zip(shown, colors, strict=True)
    )
    return (
        f"<div>{body}<style>{style}</style>{buttons}{figures}"
        f"<p style='margin:.2em 0;font-size:.85em;max-width:{_WIDTH}px'>{legend}</p>{_table(run)}</div>"
    )


def _drawing(run: Run, measure: str, title: str, shown: Sequence[int], colors: Sequence[str]) -> str:
    """One measure against the step, as SVG."""
    means = run.means
    starts = edges(len(run.steps), _POINTS)
    steps = bin_means(means["step"].to_numpy().astype(float), starts)
    values = bin_means(means[measure].to_numpy()[:, shown], starts)
    if measure == "distance_per_weight":
        values = np.log10(np.where(values > 0, values, np.nan))
    finite = values[np.isfinite(values)]
    low, high = (0.0, 1.0) if measure in ("changed", "idle") else (0.0, 0.0)
    if low == high and len(finite):
        low, high = math.floor(finite.min()), math.ceil(finite.max())
    span, wide = high - low or 1.0, float(steps[-1] - steps[0]) or 1.0
    x = _LEFT + (steps - steps[0]) / wide * (_WIDTH - _LEFT - 12)
    y = _TOP + (high - values) / span * (_HEIGHT - _TOP - _BOTTOM)
    bottom = _HEIGHT - _BOTTOM
    parts = [
        f"<path d='M{_LEFT} {_TOP}V{bottom}H{_WIDTH - 12}' fill='none' stroke='currentColor' stroke-opacity='.4'/>",
        _word(_LEFT - 5, _TOP + 9, f"{high:g}", "end"),
        _word(_LEFT - 5, bottom, f"{low:g}", "end"),
        _word(_LEFT, _HEIGHT - 9, f"{steps[0]:.0f}", "middle"),
        _word(_WIDTH - 12, _HEIGHT - 9, f"step {steps[-1]:.0f}", "end"),
    ]
    for column, color in enumerate(colors):
        parts.append(f"<path d='{_path(x, y[:, column])}' fill='none' stroke='{color}' stroke-width='1.6'/>")
    half = (_WIDTH - _LEFT - 12) / max(len(x) - 1, 1) / 2
    names = [readable(list(run.layers)[i]) for i in shown]
    for at, step, row in zip(x, steps, values, strict=True):
        told = [f"{name}: {value:.3g}" for name, value in zip(names, row, strict=True) if np.isfinite(value)]
        words = _text("\n".join([f"step {step:.0f}, {title}", *told]))
        place = f"x='{at - half:.1f}' y='{_TOP}' width='{2 * half:.1f}' height='{bottom - _TOP}'"
        parts.append(f"<rect {place} fill='transparent'><title>{words}</title></rect>")
    size = f"viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' height='{_HEIGHT}' style='max-width:100%'"
    return f"<svg role='img' aria-label='{title} of the layers against the step' {size}>{''.join(parts)}</svg>"


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """A line that breaks where a value is missing; a value that stands alone is a dot's width long."""
    path, begun = "", False
    for at, value in zip(x, y, strict=True):
        if not np.isfinite(value):
            begun = False
            continue
        path += f"{'L' if begun else 'M'}{at:.1f} {value:.1f}" + ("" if begun else "h.8")
        begun = True
    return path


def _table(run: Run) -> str:
    names = list(run.layers)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a run that only holds a gap
        mean = run.means.mean("step")
    rows = "".join(
        f"<tr><td style='text-align:left'>{label(names[i])}</td><td>{len(run.layers[names[i]])}</td>"
        + "".join(
            f"<td>{form.format(float(mean[measure][i]))}</td>"
            for measure, form in [("changed", "{:.3f}"), ("idle", "{:.3f}"), ("distance_per_weight", "{:.2e}")]
        )
        + "</tr>"
        for i in spread(range(len(names)), _ROWS)
    )
    rest = len(names) - min(len(names), _ROWS)
    more = f"<p style='font-size:.85em;margin:.2em 0'>and {rest} layers between them</p>" if rest else ""
    head = "".join(f"<th>{title}</th>" for title in ("layer", "filters", "changed S", "idle Z", "distance per weight"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}"


def _facts(run: Run) -> str:
    filters = sum(map(len, run.layers.values()))
    model = f"{run.metadata['model']}, " if run.metadata.get("model") else ""
    last = f", steps {run.steps[0]} to {run.steps[-1]}" if len(run.steps) else " yet"
    return f"{model}{len(run)} layers, {filters} filters, {len(run.steps) or 'no'} records{last}"


def _word(x: float, y: float, word: str, anchor: str) -> str:
    return f"<text x='{x}' y='{y}' text-anchor='{anchor}' font-size='11' fill='currentColor'>{word}</text>"


def _text(value: str) -> str:
    return html.escape(value, quote=True)
