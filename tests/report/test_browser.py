"""The report in headless Chromium: drawn, without errors, sorted and filtered by keyboard, accessible, printable.

With the path of a report in VOGCORE_REPORT_PAGE, that of a run on real data, the same is asked of it.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vogcore.cli import main
from vogcore.data import ArraySource
from vogcore.report import write_report

from .runs import HOSTILE, pictures, run

PAGES = (
    "digits",
    "images",
    "features",
    "text",
    "hostile",
    *(["given"] if os.environ.get("VOGCORE_REPORT_PAGE") else []),
)
SERIOUS = ("serious", "critical")
SIZES = {"desktop": (1280, 900), "phone": (375, 740)}


def save(folder: Path, name: str, scores: Any, source: Any, **options: Any) -> Path:
    path = folder / f"{name}.html"
    write_report(scores, path, source, **options)
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """Reports by name: of the demo as a user makes it, of images, of features, of text, and of hostile names."""
    folder = tmp_path_factory.mktemp("pages")
    demo = folder / "demo"
    assert main(["demo", "--output", str(demo), "--epochs", "6"]) == 0
    out = folder / "digits.html"
    assert main(["report", str(demo / "scores.h5"), "--data", str(demo / "train.npz"), "-o", str(out)]) == 0
    images = run(n=600, classes=10, maps=(28, 28))
    features, text = run(maps=(30,)), run(maps=(12, 4))
    hostile = run(classes=3)
    hostile.classes = [HOSTILE, "<img src=x onerror=alert(1)>", '" onload="alert(1)']
    hostile.warnings = [HOSTILE]
    tokens = (pictures(side=12, labels=text.labels)[:, 0] // 64).astype(int)
    vocabulary = ["the", "cat", HOSTILE, "sat"]
    given = {"given": Path(os.environ["VOGCORE_REPORT_PAGE"]).resolve()} if "given" in PAGES else {}
    return given | {
        "digits": out,
        "images": save(folder, "images", images, ArraySource(pictures(600, labels=images.labels), images.labels)),
        "features": save(
            folder, "features", features, ArraySource(pictures(side=30, labels=features.labels)[:, 3], features.labels)
        ),
        "text": save(folder, "text", text, ArraySource(tokens, text.labels), vocabulary=vocabulary),
        "hostile": save(folder, "hostile", hostile, None, title=HOSTILE),
    }


@pytest.fixture
def window(browser) -> Iterator[Any]:
    """Opens a page in light or dark, at the size of a desktop or of a phone; the browser is as before afterwards."""

    def call(path: Path, *, dark: bool = False, size: str = "desktop") -> Any:
        width, height = SIZES[size]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [scheme]})
        browser.get_log("browser")
        browser.get(path.as_uri())
        return browser

    yield call
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


@pytest.mark.parametrize("name", PAGES)
def test_nothing_goes_wrong_and_everything_is_drawn(window, pages, name):
    page = window(pages[name])
    drawn = page.execute_script(
        "return [...document.querySelectorAll('svg[role=img]')].map(svg => {"
        "  const box = svg.getBoundingClientRect(), inner = svg.getBBox();"
        "  return [svg.getAttribute('aria-labelledby'), box.width, box.height, inner.width, inner.height,"
        "          svg.querySelectorAll('path, use, image').length];"
        "})"
    )
    assert len(drawn) >= 8
    assert [entry for entry in drawn if min(entry[1:5]) < 50 or entry[5] < 3] == []
    broken = page.execute_async_script(
        "Promise.allSettled([...document.images].map(image => image.decode()))"
        ".then(all => arguments[0](all.filter(one => one.status !== 'fulfilled').map(one => String(one.reason))))"
    )
    assert broken == []
    requests = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [address for address in requests if not address.startswith("data:")] == []
    assert page.get_log("browser") == []
    assert page.title != "taken"


# Everything in both colours and both sizes; all four combinations for the page with the most in it.
LOOKS = [(name, False, "phone") for name in PAGES] + [(name, True, "desktop") for name in PAGES]
LOOKS += [("images", False, "desktop"), ("images", True, "phone")]


@pytest.mark.parametrize(
    ("name", "dark", "size"), LOOKS, ids=[f"{n}-{'dark' if d else 'light'}-{s}" for n, d, s in LOOKS]
)
def test_axe_finds_nothing_serious(window, pages, axe, name, dark, size):
    page = window(pages[name], dark=dark, size=size)
    # What is folded away is looked at, too.
    page.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    page.execute_script(axe)
    found = page.execute_async_script("axe.run(document).then(arguments[0])")
    assert found["passes"]
    serious = [
        (violation["id"], violation["help"], [node["html"][:200] for node in violation["nodes"][:3]])
        for violation in found["violations"]
        if violation["impact"] in SERIOUS
    ]
    assert serious == []


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_never_scrolls_sideways(window, pages, name):
    page = window(pages[name], size="phone")
    assert page.execute_script("return document.documentElement.scrollWidth") <= SIZES["phone"][0]


def column(page: Any, at: int) -> list[str]:
    return page.execute_script(
        "return [...document.querySelectorAll('#classes-table tbody tr')].filter(row => !row.hidden)"
        f".map(row => row.cells[{at}].textContent)"
    )


def test_classes_are_sorted_and_filtered_by_keyboard(window, pages):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    page = window(pages["images"])
    heads = page.find_elements(By.CSS_SELECTOR, "#classes-table thead th")
    names = [head.text for head in heads]
    at = next(i for i, name in enumerate(names) if name.startswith("error rate"))
    button = heads[at].find_element(By.TAG_NAME, "button")
    button.send_keys(Keys.ENTER)
    rates = [float(text.rstrip("%")) for text in column(page, at)]
    assert rates == sorted(rates)
    assert len(set(rates)) > 1
    assert heads[at].get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.SPACE)
    assert [float(text.rstrip("%")) for text in column(page, at)] == rates[::-1]
    assert heads[at].get_attribute("aria-sort") == "descending"
    heads[0].find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert [head.get_attribute("aria-sort") for head in heads].count("none") == len(heads) - 1
    assert column(page, 0) == [f"kind {c}" for c in range(10)]
    status = page.find_element(By.ID, "classes-table-status")
    assert status.text == "10 rows, sorted by class, lowest first"
    entry = page.find_element(By.ID, "classes-table-filter")
    entry.send_keys("KIND 7")
    assert column(page, 0) == ["kind 7"]
    assert status.text == "1 rows"
    entry.clear()
    entry.send_keys(Keys.SPACE)
    assert len(column(page, 0)) == 10


def test_a_missing_number_is_sorted_to_the_end_both_ways(window, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    scores = run(classes=4)
    scores.stages["all"].class_std[2] = float("nan")
    page = window(save(tmp_path, "nan", scores, None))
    heads = page.find_elements(By.CSS_SELECTOR, "#classes-table thead th")
    at = next(i for i, head in enumerate(heads) if head.text.startswith("std"))
    for _ in range(2):
        heads[at].find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
        assert column(page, 0)[-1] == "kind 2"


def test_the_theme_is_the_systems_until_it_is_chosen(window, pages):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def back(page: Any) -> str:
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    light, dark = (back(window(pages["images"], dark=d)) for d in (False, True))
    assert light == "rgb(255, 255, 255)"
    assert dark != light
    page = window(pages["images"], dark=True)
    button = page.find_element(By.ID, "theme")
    assert button.text == "Theme: as the system"
    for text, colour in (("light", light), ("dark", dark), ("as the system", dark)):
        button.send_keys(Keys.ENTER)
        assert button.text == f"Theme: {text}"
        assert back(page) == colour


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` (WCAG 2)."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_charts_can_be_read_in_both_themes(window, pages, dark):
    """axe does not judge text inside of SVG: its contrast, and that of lines and bars."""
    page = window(pages["images"], dark=dark)
    script = (
        "const found = {}; const back = getComputedStyle(document.body).backgroundColor;"
        "for (const shape of document.querySelectorAll('svg text, svg path')) {"
        "  const style = getComputedStyle(shape), text = shape.tagName === 'text';"
        # A path that says nothing of its fill is a line.
        "  const told = ['fill', 'stroke'].filter(name => text ? name === 'fill' : shape.style[name]);"
        "  for (const name of told) found[style[name]] ||= text; }"
        "const line = getComputedStyle(document.documentElement).getPropertyValue('--line');"
        "const sample = document.createElement('i'); sample.style.color = line; document.body.append(sample);"
        "return [back, getComputedStyle(sample).color, found]"
    )
    back, line, found = page.execute_script(script)
    drawn = {colour: text for colour, text in found.items() if re.match(r"rgb\(", colour) and colour != line}
    assert sum(drawn.values()) == 1
    for colour, text in drawn.items():
        light, dim = sorted((luminance(colour), luminance(back)), reverse=True)
        assert (light + 0.05) / (dim + 0.05) >= (4.5 if text else 3), colour


def test_all_controls_are_reached_with_the_tabulator(window, pages):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    page = window(pages["features"])
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert page.switch_to.active_element.text == "Skip to the content"
    seen = set()
    for _ in range(200):
        active = page.switch_to.active_element
        seen.add(active.get_attribute("id") or active.tag_name)
        active.send_keys(Keys.TAB)
    assert {"theme", "classes-table-filter", "button", "summary", "a", "div"} <= seen


def test_it_prints_in_light_colours(window, pages):
    page = window(pages["images"], dark=True)
    answer = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    pdf = base64.b64decode(answer["data"])
    assert pdf.startswith(b"%PDF")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert page.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.execute_script("return getComputedStyle(document.querySelector('nav')).display") == "none"


def test_the_file_works_wherever_it_is_put(window, pages, tmp_path):
    moved = tmp_path / "a b #1.html"
    shutil.copy(pages["digits"], moved)
    page = window(moved)
    assert page.execute_script("return document.querySelectorAll('svg[role=img]').length") >= 8
    assert page.get_log("browser") == []
