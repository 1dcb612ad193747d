import copy
import itertools

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plotly.subplots import make_subplots

from phenoscope.report.narrow import stack_narrow


def grid(rows, columns, **given):
    titles = [f"plot {i}" for i in range(rows * columns)]
    figure = make_subplots(rows, columns, subplot_titles=titles, **given)
    for row in range(rows):
        for column in range(columns):
            figure.add_scatter(x=[1, 2], y=[3, 4], row=row + 1, col=column + 1)
    return figure.to_dict()["layout"]


def applied(layout, changes):
    """The layout after plotly's relayout with these changes, which goes by `a.b` and `a[0].b`."""
    made = go.Figure(layout={name: value for name, value in copy.deepcopy(layout).items() if name != "template"})
    for name, value in changes.items():
        made.layout[name] = value
    return made.layout


@given(st.integers(1, 3), st.integers(2, 4))
def test_plots_stand_below_one_another_in_reading_order_and_go_back(rows, columns):
    layout = grid(rows, columns)
    before = copy.deepcopy(layout)
    stack_narrow(layout, 450)
    meta = layout.pop("meta")
    assert layout == before
    narrow = applied(layout, meta["narrow"])
    spans = [narrow[f"yaxis{n or ''}"].domain for n in [0, *range(2, rows * columns + 1)]]
    assert all(0 <= low < high <= 1 for low, high in spans)
    assert all(below[1] < above[0] for above, below in itertools.pairwise(spans))
    assert all(narrow[f"xaxis{n or ''}"].domain == (0, 1) for n in [0, *range(2, rows * columns + 1)])
    tops = [span[1] for span in spans]
    assert [(note.x, note.y) for note in narrow.annotations] == [(0.5, top) for top in tops]
    wide = applied(narrow.to_plotly_json(), meta["wide"])
    for name in ("xaxis", "yaxis", "xaxis2", "yaxis2"):
        assert wide[name].domain == pytest.approx(before[name]["domain"], abs=1e-4)  # spans are rounded so


def test_shared_axes_get_their_labels_and_titles_where_they_stand_alone():
    layout = grid(2, 2, shared_yaxes=True, shared_xaxes=True, x_title="all")
    layout["yaxis"]["title"] = {"text": "accuracy"}
    layout["xaxis3"]["title"] = {"text": "step"}
    stack_narrow(layout, 450)
    narrow = layout["meta"]["narrow"]
    assert narrow["yaxis2.showticklabels"] is True and narrow["yaxis2.title.text"] == "accuracy"
    assert narrow["xaxis.showticklabels"] is True and narrow["xaxis.title.text"] == "step"
    assert layout["meta"]["wide"]["yaxis2.showticklabels"] is False


def test_a_figure_of_one_column_or_with_a_way_of_its_own_is_left_alone():
    for layout in (grid(3, 1), go.Figure(go.Scatter(y=[1])).to_dict()["layout"], {}):
        before = copy.deepcopy(layout)
        stack_narrow(layout, 450)
        assert layout == before
    layout = grid(1, 2) | {"meta": {"narrow": {"height": 3}, "wide": {}}}
    stack_narrow(layout, 450)
    assert layout["meta"] == {"narrow": {"height": 3}, "wide": {}}


NAMES = st.sampled_from(["domain", "anchor", "title", "text", "x", "y", "xref", "overlaying", "matches"])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.sampled_from(["y", "y2", "paper", "free"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["xaxis", "xaxis2", "xaxis3", "yaxis", "yaxis2", "annotations", "meta"]), JSON))
def test_no_layout_of_a_damaged_file_stops_it(layout):
    stack_narrow(layout, 450)
