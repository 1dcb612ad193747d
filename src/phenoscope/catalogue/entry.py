"""Loads the catalogue's entries and checks them; the standard library is all it needs."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from ..core.errors import InputError

SECTIONS = ("theory", "empirical", "robustness", "representation", "interpretability", "explained")


@dataclasses.dataclass(frozen=True)
class Claim:
    """One condition that a paper's claim comes down to, as it was registered before the experiment was run.

    Attributes:
        id: unique within its entry.
        statement: the claim in plain words.
        observable: what is measured, in words.
        unit: what the interval is taken over ("seed", "image" ...), or "none" for a single value.
        expects: `> a`, `>= a`, `< a`, `<= a` or `in [a, b]`.
        source: where the paper says it.
        scale: "gpu" if it speaks of a scale that only the gpu preset reaches.
        control: whether it is a negative control.
        timing: whether it is about time, which other work on the machine disturbs.
        doubt: what makes its outcome doubtful, shown beside the verdict.
        amended: why the expectation was changed after it was registered.
    """

    id: str
    statement: str
    observable: str
    unit: str
    expects: str
    source: str
    scale: str | None = None
    control: bool = False
    timing: bool = False
    doubt: str | None = None
    amended: str | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """A paper, what it is about, and its claims; `arxiv` is empty where there is no such page."""

    id: str
    title: str
    authors: str
    venue: str
    arxiv: str
    section: str
    gist: str
    claims: tuple[Claim, ...]


@cache
def entries(section: str | None = None) -> tuple[Entry, ...]:
    """All entries in the order of the sections, or those of one section.

    Raises:
        InputError: there is no such section.
    """
    if section is not None and section not in SECTIONS:
        raise InputError(f"there is no section {section!r}; sections are {', '.join(SECTIONS)}")
    folder = files(__package__)
    found: list[Entry] = []
    for name in SECTIONS if section is None else (section,):
        found += parse(name, (folder / f"{name}.toml").read_text(encoding="utf-8"))
    return tuple(found)


def entry(id: str) -> Entry:
    """The entry with this id.

    Raises:
        InputError: there is none; the message names those that are spelled alike.
    """
    known = {each.id: each for each in entries()}
    if id not in known:
        near = difflib.get_close_matches(id, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`phenoscope list` shows them all"
        raise InputError(f"the catalogue has no entry {id!r}; {hint}")
    return known[id]


def parse(section: str, text: str) -> list[Entry]:
    """The entries of one section's TOML.

    Raises:
        InputError: a field is missing, unknown or of the wrong type, or an id is there twice; the message says where.
    """
    try:
        tables = tomllib.loads(text).get("entry", [])
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"catalogue section {section}: {error}") from error
    found = []
    for table in tables:
        where = f"catalogue entry {table.get('id', '?')!r}"
        claims = tuple(
            _made(Claim, claim, f"{where}, claim {claim.get('id', '?')!r}") for claim in table.pop("claim", [])
        )
        if not claims:
            raise InputError(f"{where} has no claims")
        _unique([claim.id for claim in claims], where)
        found.append(_made(Entry, table | {"section": section, "claims": claims}, where))
    _unique([each.id for each in found], f"catalogue section {section}")
    return found


def _made(kind: type[Any], table: dict[str, Any], where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name, value in table.items():
        if name not in fields:
            raise InputError(f"{where}: there is no field {name!r}")
        wanted = {"bool": bool, "tuple[Claim, ...]": tuple}.get(str(fields[name].type), str)
        if not isinstance(value, wanted):
            raise InputError(f"{where}: {name} must be {wanted.__name__}, not {value!r}")
        if wanted is str and not value and name != "arxiv":
            raise InputError(f"{where}: {name} is empty")
    missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in table]
    if missing:
        raise InputError(f"{where}: {missing[0]} is missing")
    return kind(**table)


def _unique(ids: list[str], where: str) -> None:
    twice = sorted({id for id in ids if ids.count(id) > 1})
    if twice:
        raise InputError(f"{where} has {twice[0]!r} twice")
