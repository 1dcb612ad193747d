"""Parameters given as text."""

from typing import Literal

import pytest

from phenoscope.core.errors import InputError
from phenoscope.lab.parameters import check_names, parse
from phenoscope.lab.study import Parameter


def parameter(annotation):
    return Parameter("knob", None, annotation, "")


@pytest.mark.parametrize(
    "annotation, text, value",
    [
        (int, "3", 3),
        (float, "1e-3", 1e-3),
        (float, "3", 3.0),
        (bool, "yes", True),
        (bool, "False", False),
        (str, "a b", "a b"),
        (tuple[float, ...], "0.1, 0.5", (0.1, 0.5)),
        (tuple[int, ...], "(1,2,)", (1, 2)),
        (tuple[int, str], "1,a", (1, "a")),
        (int | None, "none", None),
        (int | None, "4", 4),
        (tuple[int, ...] | int, "4", (4,)),
        (Literal["a", "b"], "b", "b"),
        (Literal[1, 2], "2", 2),
    ],
)
def test_text_becomes_what_the_annotation_says(annotation, text, value):
    found = parse(text, parameter(annotation))
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "annotation, text, words",
    [
        (int, "3.5", "knob=3.5: a whole number is needed"),
        (float, "much", "a number is needed"),
        (bool, "perhaps", "true or false"),
        (tuple[float, ...], "1;2", "tuple"),
        (tuple[int, str], "1", "tuple"),
        (Literal["a", "b"], "c", "'a', 'b'"),
        (object, "x", "cannot be set by text"),
    ],
)
def test_text_of_another_kind_is_refused(annotation, text, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        parse(text, parameter(annotation))


def test_an_unknown_name_is_answered_with_the_near_ones():
    known = {name: Parameter(name, 1, int, "") for name in ("densities", "seeds", "steps")}
    with pytest.raises(InputError, match="did you mean densities"):
        check_names({"density": 1}, known, "snip")
    with pytest.raises(InputError, match="it has densities, seeds, steps"):
        check_names({"zzz": 1}, known, "snip")
