"""The example runs and is right, and every block of the page on infinite networks prints what stands below it."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "infinite.md"
BLOCK = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("infinite_network", ROOT / "examples" / "infinite_network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_infinite_networks_tell_digits_apart_and_are_less_sure_where_they_have_seen_less(example, capsys):
    found = example.main(["--train", "60", "--test", "80"])
    assert list(found) == list(example.NETWORKS) and "surer half" in capsys.readouterr().out
    for facts in found.values():
        assert facts["right"] > 0.6  # chance is 0.1
        assert facts["right"] == pytest.approx((facts["surer half"] + facts["other half"]) / 2)
    early = example.main(["--train", "60", "--test", "80", "--time", "0.001"])
    for name, facts in early.items():  # little trained: the spread is nearly that of the start, which is larger
        assert facts["largest std"] > found[name]["largest std"]


def printed() -> list[str]:
    names: dict[str, object] = {}
    found = []
    for source, _ in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(source, str(PAGE), "exec"), names)
        found.append(out.getvalue())
    return found


def test_the_pages_blocks_print_what_stands_below_them():
    text = PAGE.read_text(encoding="utf-8")
    said = [result for _, result in BLOCK.findall(text)]
    assert len(said) == text.count("```python") == 6  # every block has its result
    assert printed() == said
