import pytest
from torch import nn

from phenoscope.core.errors import InputError
from phenoscope.record.figures.names import check_layers, label, named


def test_a_label_holds_no_markup():
    assert label('<a href="javascript:alert(1)">x</a>') == '&lt;a href="javascript:alert(1)"&gt;x&lt;/a&gt;'
    assert label("a & b") == "a &amp; b"


def test_a_long_label_loses_its_middle_and_is_escaped_after_that():
    text = label("<" * 30 + "-" * 100 + ">" * 30, longest=20)
    assert text.startswith("&lt;") and text.endswith("&gt;") and "…" in text
    assert len(text.replace("&lt;", "<").replace("&gt;", ">")) == 20


def test_control_characters_and_those_that_reorder_text_become_spaces():
    assert label("a\x00b\u202ec\u202fd") == "a b c\u202fd"  # the last is a narrow space


def test_runs_of_the_same_name_are_told_apart_by_their_folders(record):
    runs = [record(nn.Linear(3, 2), name, (3,), steps=1) for name in ("a/x", "b/x", "y")]
    assert [name for name, _ in named(runs)] == ["a/x", "b/x", "y"]
    assert [name for name, _ in named([runs[2], runs[2]])] == ["y", "y (2)"]


def test_one_run_needs_no_list_and_none_is_an_error(recorded):
    assert [name for name, _ in named(recorded[1])] == ["small"]
    with pytest.raises(InputError, match="no run"):
        named([])


def test_an_unknown_layer_is_named(recorded):
    with pytest.raises(InputError, match="'conv9'"):
        check_layers(["0", "conv9"], [recorded[1]])
    with pytest.raises(InputError, match="list of layer names"):
        check_layers("0", [recorded[1]])
