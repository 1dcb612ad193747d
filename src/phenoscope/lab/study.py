"""A study: a paper's experiment, what its claims observe, and its figure."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import xarray as xr

from ..catalogue import Entry, entry, is_ready, module_of
from ..core.errors import InputError

PRESETS = ("smoke", "default", "gpu")
_RESERVED = {"preset", "seed", "jobs", "engine", "address", "fresh", "results", "device", "progress"}

Experiment = Callable[..., xr.Dataset]
Observable = Callable[[xr.Dataset], xr.DataArray]


class Parameter(NamedTuple):
    """A knob of an experiment: its name, default, annotation and a line of help."""

    name: str
    default: Any
    annotation: Any
    help: str


class Study:
    """Collects what a study file says about one entry of the catalogue.

    What a claim expects stands in the catalogue and is never seen here.

    Args:
        id: the entry's id.
        smoke: parameters of the preset that the tests run, at most 5 s.
        gpu: parameters of the preset at the paper's scale, as near as one GPU allows.
    """

    def __init__(self, id: str, *, smoke: Mapping[str, Any] | None = None, gpu: Mapping[str, Any] | None = None):
        self.id = id
        self.presets: dict[str, dict[str, Any]] = {"smoke": dict(smoke or {}), "default": {}, "gpu": dict(gpu or {})}
        self.observables: dict[str, Observable] = {}
        self.notes: dict[str, str] = {}
        self.draw: Callable[[xr.Dataset], Any] | None = None
        self.conduct: Experiment | None = None

    def experiment(self, function: Experiment) -> Experiment:
        """Decorates the experiment: `experiment(lab, *, <parameters with defaults>) -> xr.Dataset`."""
        _, *rest = inspect.signature(function).parameters.values()
        for parameter in rest:
            if parameter.kind is not parameter.KEYWORD_ONLY or parameter.default is parameter.empty:
                raise InputError(f"study {self.id}: {parameter.name} must be keyword-only and have a default")
            if parameter.name in _RESERVED:
                raise InputError(f"study {self.id}: {parameter.name} is a name that every run has; choose another")
        names = {parameter.name for parameter in rest}
        for preset, values in self.presets.items():
            if unknown := values.keys() - names:
                raise InputError(f"study {self.id}: preset {preset} sets {min(unknown)}, which is no parameter")
        self.conduct = function
        return function

    def claim(self, id: str, *, note: str = "") -> Callable[[Observable], Observable]:
        """Decorates a claim's observable, a function of the experiment's result.

        Args:
            id: the claim's, as registered.
            note: why the claim does not hold, shown with a verdict that is not `holds`.
        """

        def keep(function: Observable) -> Observable:
            if id in self.observables:
                raise InputError(f"study {self.id}: claim {id} has two observables")
            self.observables[id] = function
            if note:
                self.notes[id] = note
            return function

        return keep

    def figure(self, function: Callable[[xr.Dataset], Any]) -> Callable[[xr.Dataset], Any]:
        """Decorates the figure: from the experiment's result to a plotly figure."""
        self.draw = function
        return function

    @property
    def entry(self) -> Entry:
        """The catalogue's entry."""
        return entry(self.id)

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The experiment's parameters by name, with the help that its docstring's `Args` give."""
        function = self._conduct()
        signature = inspect.signature(function, eval_str=True)
        help = _argument_help(inspect.getdoc(function) or "")
        _, *rest = signature.parameters.values()
        return {p.name: Parameter(p.name, p.default, p.annotation, help.get(p.name, "")) for p in rest}

    def values(self, preset: str) -> dict[str, Any]:
        """All parameters as a preset has them."""
        if preset not in PRESETS:
            raise InputError(f"there is no preset {preset!r}; presets are {', '.join(PRESETS)}")
        return {name: each.default for name, each in self.parameters.items()} | self.presets[preset]

    def check(self) -> None:
        """Refuse a study that lacks its experiment, its figure, or an observable for a registered claim.

        Raises:
            InputError: the message names what is missing, or what is not registered.
        """
        self._conduct()
        if self.draw is None:
            raise InputError(f"study {self.id} has no figure")
        registered = {claim.id for claim in self.entry.claims}
        if missing := registered - self.observables.keys():
            raise InputError(f"study {self.id}: claim {min(missing)} is registered and has no observable")
        if unknown := self.observables.keys() - registered:
            raise InputError(f"study {self.id}: {min(unknown)} is not registered in the catalogue")

    def _conduct(self) -> Experiment:
        if self.conduct is None:
            raise InputError(f"study {self.id} has no experiment")
        return self.conduct


def study(id: str) -> Study:
    """The study of an entry.

    Raises:
        InputError: no such entry, or no study of it yet.
    """
    found = entry(id)
    if not is_ready(found):
        raise InputError(f"{id} has no study yet; `phenoscope list --status ready` shows those that can be run")
    module = importlib.import_module(module_of(found))
    made = getattr(module, "study", None)
    if not isinstance(made, Study) or made.id != id:
        raise InputError(f"{module.__name__} must define `study = Study({id!r}, ...)`")
    return made


def _argument_help(docstring: str) -> dict[str, str]:
    """`name: text` under `Args:`, lines that are indented further belonging to the name before."""
    match = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", docstring, re.MULTILINE)
    found: dict[str, str] = {}
    name = ""
    for line in (match[1] if match else "").splitlines():
        if begun := re.match(r" {4}(\w[\w, ]*): +(.*)", line):
            name = begun[1]
            found[name] = begun[2]
        elif name and line.strip():
            found[name] += " " + line.strip()
    return {each.strip(): text for names, text in found.items() for each in names.split(",")}
