import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenoscope.report.figures import forest_row, forest_strip
from phenoscope.report.figures.forest import Axis, measured
from phenoscope.report.numbers import number, numbers
from phenoscope.report.outcomes import VERDICTS, ClaimOutcome

ANY = st.floats(allow_nan=True, allow_infinity=True)


def claim(expects="> 0.15", verdict="holds", **given):
    return ClaimOutcome("c", verdict, "it is so", "what is measured", "seed", expects, **given)


def percent(text):
    return float(text.rstrip("%"))


def parts(svg):
    """Places of the band, the interval, the mark and the other seeds, in percent of the width."""
    root = ElementTree.fromstring(svg)
    band, whisker, mark = root.find("rect"), root.find("line[@class='whisker']"), root.find("svg[@class='at']")
    return (
        (percent(band.get("x")), percent(band.get("x")) + percent(band.get("width"))),
        (percent(whisker.get("x1")), percent(whisker.get("x2"))) if whisker is not None else None,
        percent(mark.get("x")),
        [percent(line.get("x1")) for line in root.findall("line[@class='other']")],
    )


def test_places_are_where_their_values_are_on_the_axis():
    # From 0 to 0.5 with 8 % of the width left free at either end; to 0.01 % because places are written so.
    def at(value):
        return 100 * (0.08 + 0.84 * value / 0.5)

    band, whisker, mark, others = parts(
        forest_row(claim("in [0.1, 0.4]", estimate=0.3, low=0.2, high=0.5, others=(0.25,)))
    )
    assert band == pytest.approx((at(0.1), at(0.4)), abs=0.02)
    assert whisker == pytest.approx((at(0.2), at(0.5)), abs=0.02)
    assert mark == pytest.approx(at(0.3), abs=0.02) and others == pytest.approx([at(0.25)], abs=0.02)


def test_a_one_sided_expectation_is_shaded_to_the_end_and_infinity_stands_there():
    band, _, mark, _ = parts(forest_row(claim("> 0.15", estimate=math.inf, low=math.inf, high=math.inf)))
    assert band[1] == pytest.approx(100, abs=0.02) and mark == 100
    band, _, mark, _ = parts(forest_row(claim("<= -2", estimate=-3.0)))
    assert band[0] == 0 and mark < band[1]


def test_zero_is_on_the_axis_unless_it_would_press_the_values_together():
    assert Axis.around([2.0, 3.0]).low < 0 < Axis.around([-3.0, -2.0]).high
    assert Axis.around([0.98, 0.99]).low > 0.97


@given(
    ANY,
    ANY,
    ANY,
    st.lists(ANY, max_size=3),
    st.sampled_from(["> 0.15", "<= -2e-30", "in [1, 1]", "nothing", ">= 1e300"]),
)
def test_whatever_the_numbers_a_row_is_xml_inside_its_width_and_keeps_their_order(estimate, low, high, others, expects):
    one = claim(expects, estimate=estimate, low=low, high=high, others=tuple(others))
    row = forest_row(one)
    if row:
        ElementTree.fromstring(row)
        assert "nan" not in row
        assert all(0 <= float(place) <= 100 for place in re.findall(r"x[12]?='([^%']+)%'", row))
        assert 1 <= row.count("<text") <= 10
    ElementTree.fromstring(forest_strip([one, one]))
    axis = Axis.around([estimate, low, high])
    there = sorted(value for value in (estimate, low, high) if not math.isnan(value))
    assert [axis.place(value) for value in there] == sorted(axis.place(value) for value in there)


def test_marks_differ_in_shape_not_in_color_alone():
    shapes = {v: re.search(r"class='at'.*?<(\w+) class='(mark[^']*)'", forest_row(claim(verdict=v, estimate=1.0)))
              .groups() for v in VERDICTS[:3]}  # fmt: skip
    assert len(set(shapes.values())) == 3


def test_a_claim_without_an_estimate_shows_what_it_expects_and_nothing_else():
    row = forest_row(claim(verdict="not applicable"))
    assert "class='band'" in row and "class='at'" not in row and "no estimate" in row
    assert forest_row(claim("so so", "failed")) == ""


def test_numbers_are_told_apart_from_the_bound_that_decides():
    assert measured(claim("> 0.9999", estimate=0.99987, low=0.99985, high=0.99989)).startswith("0.99987, ")
    assert numbers([1.0, 1.00001]) == ["1", "1.00001"]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_number_is_the_number_to_its_digits(value):
    said = number(value, 6).replace("−", "-")
    if "×10" in said:
        mantissa, power = said.split("×10")
        said = f"{mantissa}e{power.translate(str.maketrans('⁻⁰¹²³⁴⁵⁶⁷⁸⁹', '-0123456789'))}"
    said = said.replace("×10", "e")
    assert float(said) == pytest.approx(value, rel=1e-5)  # six digits
