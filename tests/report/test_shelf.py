import json
import math

import pytest

from phenoscope.catalogue import entry
from phenoscope.lab.result import JudgedClaim
from phenoscope.lab.store import write_json
from phenoscope.report.outcomes import VERDICTS, read_outcome
from phenoscope.report.shelf import known_ids, read_shelf

from .written import claim_facts, verdict_facts, write_result


def test_what_the_laboratory_writes_is_what_is_read(tmp_path):
    registered = entry("snip").claims[0]
    judged = JudgedClaim(registered, "holds", 0.3, -math.inf, 0.4, 5, note="n", others=(0.1, math.nan))
    assert judged.facts().keys() <= claim_facts(registered, "holds").keys()
    write_json(tmp_path / "verdict.json", verdict_facts("snip", ["holds"], claims=[judged.facts()]))
    (read,) = read_outcome(tmp_path / "verdict.json", "snip").claims
    for field in ("id", "statement", "observable", "unit", "expects", "source"):
        assert getattr(read, field) == getattr(registered, field)
    assert (read.estimate, read.low, read.high, read.n, read.note) == (0.3, -math.inf, 0.4, 5, "n")
    assert read.others[0] == 0.1 and math.isnan(read.others[1])


def test_judged_goes_before_smoke_the_papers_parameters_before_ones_own_then_the_newest(tmp_path):
    def made(key, date, preset="default", changed=()):
        facts = verdict_facts("snip", ["holds"], date=date, preset=preset, changed=list(changed))
        return write_result(tmp_path, facts, key=key)

    made("a", "2025-01-01T00:00:00+00:00")
    made("b", "2025-03-01T00:00:00", preset="gpu")  # without a zone: UTC
    made("c", "2025-03-01T01:00:00+02:00")  # earlier than b
    made("d", "2025-05-01T00:00:00+00:00", preset="smoke")
    made("e", "2025-04-01T00:00:00+00:00", changed=["model"])
    made("f", "no date")
    order = [outcome.folder.name for outcome in read_shelf([tmp_path], "snip").outcomes]
    assert order == ["gpu-b", "default-c", "default-a", "default-f", "default-e", "smoke-d"]


def test_a_file_alone_counts_and_of_two_equals_the_one_with_its_figure(tmp_path):
    docs, results = tmp_path / "docs", tmp_path / "results"
    docs.mkdir()
    facts = verdict_facts("snip", ["holds"])
    (docs / "snip.json").write_text(json.dumps(facts))
    assert read_shelf([docs, results], "snip").first.folder is None
    write_result(results, facts)
    assert read_shelf([docs, results], "snip").first.folder is not None
    (docs / "snip.json").write_text(json.dumps(facts | {"date": "2026-01-01T00:00:00+00:00"}))
    assert read_shelf([docs, results], "snip").first.folder is None
    assert known_ids([docs, results]) == {"snip"}


DAMAGED = {
    "cut off": '{"id": "snip", "claims": [',
    "not JSON": "\x00\x01",
    "a list": "[1, 2]",
    "deep": "[" * 100_000,
    "of another study": json.dumps(verdict_facts("snip", ["holds"]) | {"id": "lime"}),
    "no claims": json.dumps({"id": "snip", "claims": {}}),
    "a claim that is text": json.dumps({"id": "snip", "claims": ["x"]}),
    "an unknown verdict": json.dumps({"id": "snip", "claims": [{"id": "a", "verdict": ["holds"]}]}),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named_and_the_others_are_shown(tmp_path, content):
    home = write_result(tmp_path, verdict_facts("snip", ["holds"]), key="bad")
    write_result(tmp_path, verdict_facts("snip", ["refuted"]), key="good")
    (home / "verdict.json").write_text(content)
    shelf = read_shelf([tmp_path], "snip")
    assert [outcome.folder.name for outcome in shelf.outcomes] == ["default-good"]
    (problem,) = shelf.problems
    assert str(home / "verdict.json") in problem


def test_fields_of_the_wrong_type_are_left_out(tmp_path):
    odd = {"id": "a", "verdict": "holds", "estimate": "0.3", "low": True, "high": 10**400, "n": -3, "others": {"a": 1}}
    facts = {"id": "snip", "versions": ["x"], "seconds": "long", "date": 5, "changed": "all", "seed": None}
    (tmp_path / "snip.json").write_text(json.dumps(facts | {"claims": [odd | {"statement": [1], "control": "yes"}]}))
    outcome = read_shelf([tmp_path], "snip").first
    (claim,) = outcome.claims
    assert math.isnan(claim.estimate) and math.isnan(claim.low) and claim.high == math.inf
    assert (claim.n, claim.others, claim.statement, claim.control) == (0, (), "[1]", False)
    assert (outcome.versions, outcome.moment, outcome.changed, outcome.seed) == ({}, None, (), "")


def test_counts_are_in_the_order_of_the_verdicts(tmp_path):
    facts = verdict_facts("snip", ["inconclusive", "holds", "holds"])
    write_result(tmp_path, facts)
    assert list(read_shelf([tmp_path], "snip").first.counts.items()) == [("holds", 2), ("inconclusive", 1)]
    assert set(VERDICTS) >= {"holds", "refuted", "inconclusive", "not applicable", "failed", "not judged"}


def test_links_that_lead_outside_and_odd_folders_are_passed_over(tmp_path):
    outside, results = tmp_path / "outside", tmp_path / "results"
    home = write_result(outside, verdict_facts("snip", ["holds"]))
    results.mkdir()
    (results / "snip").symlink_to(outside / "snip")
    (results / "lime.json").symlink_to(home / "verdict.json")
    (results / "rise").mkdir()
    (results / "rise" / "default-a").symlink_to(results / "rise" / "default-a")  # in a circle
    write_result(results, verdict_facts("grad-cam", ["holds"]), key="../x/y")  # no name of a key
    for id in ("snip", "lime", "rise", "grad-cam"):
        assert read_shelf([results], id).outcomes == () and read_shelf([results], id).problems == ()
