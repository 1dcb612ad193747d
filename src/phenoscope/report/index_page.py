"""The page that shows runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..record import figures
from ..record.run import Run
from .facts import facts
from .figure_box import figure_box, note, section
from .paper import observed
from .tables import Markup, table
from .theme import Live, page, text


def index_page(
    runs: Mapping[str, tuple[str, Run]], *, home: str = "", remarks: Sequence[str] = (), live: Live | None = None
) -> str:
    """Links to the runs, their measures side by side, their facts.

    Args:
        runs: file name of a run's page -> the run's name, and the run.
        home: the page from which one comes here, if there is one.
        remarks: sentences on what could not be shown.
        live: for a page that follows what changes.
    """
    links = "".join(
        f"<li><a href='{text(file)}'><strong>{text(name)}</strong><span>{text(_line(run))}</span></a></li>\n"
        for file, (name, run) in runs.items()
    )
    known = {name: facts(run) for name, run in runs.values()}
    titles = list(dict.fromkeys(fact for each in known.values() for fact in each))
    head = ["", *(Markup(f"<a href='{text(file)}'>{text(name)}</a>") for file, (name, _) in runs.items())]
    rows = [[title, *(each.get(title, "–") for each in known.values())] for title in titles]
    several = [run for _, run in runs.values()]
    shown = [observed(run) for run in several]
    layers = sorted({name for each in shown for name in each or []}) if all(shown) else None
    back = f"<p class='back'><a href='{text(home)}'>← All papers</a></p>\n" if home else ""
    body = (
        f"<header>\n{back}<h1>How the filters evolved</h1>\n"
        "<p class='lead'>What moved in each layer of a network while it trained, and what did not.</p>\n"
        f"</header>\n<main>\n{''.join(map(note, remarks))}<ul class='runs'>\n{links}</ul>\n"
        + section(
            "The measures, side by side" if len(runs) > 1 else "The measures",
            "Look at the order of the lines, and at whether they lie apart or together. Lines of the lowest layers are "
            "blue, those of the highest red.",
            figure_box("figure-measures", "Measures against the step", lambda: figures.measures(several, layers)),
        )
        + section("The runs", "What was trained and recorded.", table(head, rows))
        + "</main>\n"
    )
    return page("How the filters evolved", body, live=live)


def _line(run: Run) -> str:
    filters = sum(map(len, run.layers.values()))
    model = f"{run.metadata['model']}, " if run.metadata.get("model") else ""
    return f"{model}{len(run)} layers, {filters} filters, {run.means.sizes['step']} records"
