"""The documentation site: built strictly and without a network, complete, and fetching nothing from others."""

from __future__ import annotations

import html.parser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vogcore
from vogcore.cli import _parser

from .blocks import DOCUMENTS, ROOT, read

# A proxy that is not there: whoever asks the network, fails.
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


class Loaded(html.parser.HTMLParser):
    """What a browser fetches for a page, and the targets that can be linked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.ids.add(named.get("id") or "")
        if tag in ("script", "img", "iframe", "link", "source", "video") and named.get("rel") != "canonical":
            self.addresses.append(named.get("src") or named.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, **NO_NETWORK, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_document_is_a_page(site) -> None:
    for path in DOCUMENTS:
        name = path.relative_to(ROOT).as_posix().removeprefix("docs/")
        if name != "README.md":  # docs/index.md takes its place
            assert (site / name).with_suffix(".html").is_file(), name


def test_nothing_is_fetched_from_others(site) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        addresses = Loaded(read(page)).addresses
        assert [a for a in addresses if re.match(r"(https?:)?//", a)] == [], page.name
    for style in site.rglob("*.css"):
        assert re.findall(r"url\([\"']?(?:https?:)?//[^)]*\)|@import", read(style)) == [], style.name


def test_the_search_finds_pages(site) -> None:
    assert "class-normalised" in read(site / "search" / "search_index.json")


def test_public_names_are_in_the_reference(site) -> None:
    ids = set().union(*(Loaded(read(page)).ids for page in (site / "api").glob("*.html")))
    for name in vogcore.__all__:
        home = getattr(getattr(vogcore, name), "__module__", "")
        assert name == "__version__" or {f"vogcore.{name}", f"{home}.{name}"} & ids, name
    assert {f"vogcore.plots.Plots.{name}" for name in ("deciles", "distribution", "grid", "map", "history")} <= ids
    adapters = [path.stem for path in (ROOT / "adapters/vogcore_adapters").glob("[a-z]*.py")]
    assert sorted(name for name in adapters if f"vogcore_adapters.{name}" not in ids) == []


def test_roles_of_docstrings_are_links(site) -> None:
    for page in (site / "api").glob("*.html"):
        assert re.findall(r":(?:class|meth|func|attr|mod):", read(page)) == []
        assert "<autoref" not in read(page)
    assert 'href="index.html#vogcore.score"' in read(site / "api" / "scores.html")


def test_commands_are_on_their_page(site) -> None:
    page = read(site / "command-line.html")
    (commands,) = [action for action in _parser()._actions if action.dest == "command"]
    assert set(commands.choices) >= {"score", "show", "check-model", "gradient-model", "demo"}
    for name in commands.choices:
        assert f">vogcore {name}<" in page, name
    assert "--keep-gradients" in page


def test_results_are_those_of_the_benchmarks(site) -> None:
    page = re.sub(r"<[^>]+>", "", read(site / "performance.html"))
    for path in (ROOT / "benchmarks/results").glob("*.md"):
        cells = re.findall(r"(?<=\| )[\d.,]{3,}(?= \|)", read(path))
        assert cells, path.name
        assert [cell for cell in cells if cell not in page] == [], path.name
    assert "results:" not in page


def test_marks_for_the_tests_are_not_shown(site) -> None:
    for page in site.rglob("*.html"):
        assert "```" not in re.sub(r"<code>.*?</code>", "", read(page), flags=re.DOTALL), page.name
    assert "with vogcore.GradientWriter" in re.sub(r"<[^>]+>", "", read(site / "how-to" / "other.html"))
