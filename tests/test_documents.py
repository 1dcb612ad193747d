"""The README and the other documents: the names they use exist, and their links lead somewhere."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import phenoscope

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document):
    return re.findall(r"^ *```python\n(.*?)^ *```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_python_in_documents_parses_and_names_only_public_things(document):
    for block in blocks(document):
        indent = len(block) - len(block.lstrip(" "))
        tree = ast.parse("\n".join(line[indent:] for line in block.splitlines()))
        bound = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}  # `lab`, say, in a study
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
                continue
            if node.value.id in set(phenoscope._PACKAGES) - bound:
                package = importlib.import_module(f"phenoscope.{node.value.id}")
                assert node.attr in package.__all__, f"{node.value.id}.{node.attr}"
            elif node.value.id == "phenoscope":
                assert node.attr in phenoscope.__all__, node.attr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_between_documents_lead_somewhere(document):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target
