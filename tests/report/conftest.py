"""Reports of made-up runs, and the browser that opens them."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from vogcore.data import ArraySource
from vogcore.report import write_report
from vogcore.store import Scores

from .runs import pictures, run

REQUIRED = "VOGCORE_REQUIRE_BROWSER"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-sync", "--disable-quic", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip


class Page(HTMLParser):
    """What a page says, by its parts.

    Attributes:
        text: all text that is shown, scripts and style left out.
        tags: every tag with its attributes.
        scripts: content of every script.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside: list[str] = []
        self._text: list[str] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self._text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)
            if tag == "script":
                self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self._text.append(data)
        elif self._inside[-1] == "script":
            self.scripts[-1] += data

    def ids(self) -> list[str]:
        """Every id, in order."""
        return [attrs["id"] or "" for _, attrs in self.tags if "id" in attrs]

    def count(self, tag: str) -> int:
        """How many elements of a kind there are."""
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture
def report(tmp_path, monkeypatch) -> Callable[..., Page]:
    """Write a report on scores and take it apart; with fewer examples in detail, which take most of the time."""
    monkeypatch.setattr("vogcore.report.gallery._HARDEST", 2)
    monkeypatch.setattr("vogcore.report.gallery._EASIEST", 1)

    def call(scores: Scores, source: Any = None, **options: Any) -> Page:
        path = tmp_path / "report.html"
        write_report(scores, path, source, overwrite=True, **options)
        return Page(path.read_text(encoding="utf-8"))

    return call


@pytest.fixture(scope="session")
def full_page(tmp_path_factory) -> Page:
    """The report of a run with images and maps, which nothing is missing in."""
    scores = run(maps=(28, 28))
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(scores, path, ArraySource(pictures(labels=scores.labels), scores.labels))
    return Page(path.read_text(encoding="utf-8"))


def _driver(program: str, chromedriver: str, profile: str) -> Any:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = program
    for option in (*_OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(chromedriver))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium of the system; where there is none the tests are skipped, or fail where it is required."""
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    chromedriver = shutil.which("chromedriver")
    if program is None or chromedriver is None:
        message = "Chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{message}, and {REQUIRED}=1 asks for them.")
        pytest.skip(f"{message}.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = _driver(program, chromedriver, profile)
        try:
            yield driver
        finally:
            driver.quit()


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, an accessibility checker (tests/data/axe)."""
    return (Path(__file__).parents[1] / "data" / "axe" / "axe.min.js").read_text(encoding="utf-8")
