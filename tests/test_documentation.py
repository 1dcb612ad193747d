"""The documentation site: it builds without a warning, its links lead somewhere, nothing comes over a network."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "WARNING" not in built.stdout + built.stderr
    return folder


def test_the_reference_has_a_page_for_every_package_and_names_all_that_is_public():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    kept = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "docs" / "api").glob("*.md")}
    assert kept == reference.pages(), "run tools/reference.py"


def test_every_link_and_anchor_of_every_page_leads_somewhere(site):
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    assert len(pages) > 20
    for page, text in pages.items():
        if page.name == "404.html":  # its links are for the root of a server
            continue
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            address, anchor = urldefrag(target)
            if re.match(r"[a-z]+:", address):
                continue
            other = (page.parent / unquote(address)).resolve() if address else page
            assert other.exists(), f"{page.name}: {target}"
            if anchor and other in pages and not anchor.startswith("__"):
                assert f'id="{unquote(anchor)}"' in pages[other], f"{page.name}: {target}"


def test_pages_show_without_errors_and_without_a_network(site, browser):
    said, outside = [], []
    page = browser.new_page()
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: outside.append(request.url) if request.url.startswith("http") else None)
    for name in ("index.html", "results.html", "empirical.html", "api/train.html", "concepts.html"):
        page.goto((site / name).as_uri())
        assert page.locator("h1").first.is_visible()
    page.close()
    assert not said and not outside
