"""The package as a whole: what importing it costs, which way imports run, what its names and its extras are."""

import ast
import doctest
import importlib
import importlib.util
import json
import pkgutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import phenoscope

ROOT = Path(phenoscope.__file__).parent
# A file imports only from floors below its own, and from its own package.
FLOORS = """
core | stats catalogue | lab | data models | train | theory | kernels | landscape | measure | record | prune | represent
| explain | robust | studies integrations | report | cli
""".replace("\n", " ").split("|")


def modules_after(program):
    code = f"import sys, json\n{program}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    return json.loads(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    )


@pytest.mark.parametrize(
    "program",
    [
        "import phenoscope; dir(phenoscope); phenoscope.__version__",
        "import phenoscope.cli.app as a, contextlib\nwith contextlib.redirect_stdout(sys.stderr): a.run(['--help'])",
        "import phenoscope.cli.app as a, contextlib\nwith contextlib.redirect_stdout(sys.stderr): a.run(['list'])",
    ],
)
def test_importing_the_package_or_asking_for_help_loads_nothing_heavy(program):
    assert not {"torch", "numpy", "xarray", "zarr", "numba", "plotly", "scipy"} & set(modules_after(program))


def test_lazy_names_are_the_things_they_name():
    assert phenoscope.Recorder is phenoscope.record.Recorder and callable(phenoscope.record.redundant)
    with pytest.raises(AttributeError, match="nothing"):
        _ = phenoscope.nothing


def test_imports_run_downward_only():
    floor = {name: level for level, names in enumerate(FLOORS) for name in names.split()}
    wrong = []
    for file in ROOT.rglob("*.py"):
        parts = file.relative_to(ROOT).parts
        if len(parts) < 2:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                inside = parts[: len(parts) - node.level]
                targets = (
                    [(*inside, *(node.module or "").split("."))]
                    if node.module
                    else [(*inside, a.name) for a in node.names]
                )
                for target in targets:
                    package = target[0] if target and target[0] in floor else parts[0]
                    if package != parts[0] and floor[package] >= floor[parts[0]]:
                        wrong.append(f"{file.relative_to(ROOT)} imports {package}")
    assert not wrong
    assert {p.name for p in ROOT.iterdir() if (p / "__init__.py").is_file()} == set(floor)


def test_public_names_are_unique_in_their_package_and_are_never_modules():
    for name in phenoscope._PACKAGES:
        package = importlib.import_module(f"phenoscope.{name}")
        assert len(set(package.__all__)) == len(package.__all__)
        for public in package.__all__:
            if public != "figures":
                assert type(getattr(package, public)).__name__ != "module", f"{name}.{public}"


def test_docstring_examples_give_what_they_say():
    for module in pkgutil.walk_packages(phenoscope.__path__, "phenoscope."):
        if "triton_" in module.name and importlib.util.find_spec("triton") is None:
            continue  # comes with torch's CUDA build, and for developers
        failed, _ = doctest.testmod(importlib.import_module(module.name))
        assert not failed, module.name


def test_no_dependency_pulls_in_torchvision():
    seen, left = set(), [("phenoscope", frozenset({"dev"}))]
    while left:
        name, extras = left.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            needs = requires(name) or []
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, needs):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
                left.append((requirement.name.lower(), frozenset(requirement.extras)))
    assert len(seen) > 30 and "torchvision" not in {name for name, _ in seen}
