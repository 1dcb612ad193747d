"""The catalogue as it was registered, and a loader that names what is wrong."""

import pytest

from phenoscope.catalogue import SECTIONS, entries, entry
from phenoscope.catalogue.entry import parse
from phenoscope.core.errors import InputError
from phenoscope.lab import Expectation

GOOD = """
[[entry]]
id = "a"
title = "A"
authors = "B"
venue = "C 2020"
arxiv = ""
gist = "D."
[[entry.claim]]
id = "one"
statement = "S"
observable = "O"
unit = "seed"
expects = "> 0"
source = "p. 1"
"""


def test_all_registered_entries_and_claims_are_there():
    sizes = {section: len(entries(section)) for section in SECTIONS}
    registered = {
        "theory": 39,
        "empirical": 25,
        "robustness": 20,
        "representation": 18,
        "interpretability": 41,
        "explained": 18,
    }
    assert sizes.keys() == registered.keys() and all(sizes[name] >= registered[name] for name in sizes)
    claims = [claim for each in entries() for claim in each.claims]
    assert sum(registered.values()) == 161 and len(claims) >= 751
    assert sum(claim.scale == "gpu" for claim in claims) >= 43 and sum(claim.control for claim in claims) >= 17


def test_ids_are_unique_over_all_sections_and_every_expectation_is_of_the_grammar():
    assert len({each.id for each in entries()}) == len(entries())
    for each in entries():
        for claim in each.claims:
            Expectation.parse(claim.expects)
            assert claim.scale in (None, "gpu") and claim.statement.endswith("."), f"{each.id}: {claim.id}"


def test_an_entry_is_found_by_its_id_and_near_misses_are_named():
    assert entry("snip").section == "empirical"
    with pytest.raises(InputError, match="did you mean snip"):
        entry("snipp")
    with pytest.raises(InputError, match="no section 'cooking'"):
        entries("cooking")


@pytest.mark.parametrize(
    "old,new,message",
    [
        ('venue = "C 2020"\n', "", "entry 'a': venue is missing"),
        ('unit = "seed"', 'units = "seed"', "entry 'a', claim 'one': there is no field 'units'"),
        ('expects = "> 0"', "expects = 0", "expects must be str"),
        ('source = "p. 1"', 'source = ""', "source is empty"),
        ('source = "p. 1"', 'source = "p. 1"\ncontrol = "yes"', "control must be bool"),
        ('gist = "D."', "gist = ", "section theory"),
    ],
)
def test_a_broken_entry_is_named(old, new, message):
    assert [each.id for each in parse("theory", GOOD)] == ["a"]
    with pytest.raises(InputError, match=message):
        parse("theory", GOOD.replace(old, new))


def test_doubled_ids_and_entries_without_claims_are_named():
    with pytest.raises(InputError, match="section theory has 'a' twice"):
        parse("theory", GOOD + GOOD)
    with pytest.raises(InputError, match="has no claims"):
        parse("theory", GOOD[: GOOD.index("[[entry.claim]]")])
