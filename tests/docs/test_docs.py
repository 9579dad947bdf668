"""What the documents say is true: links, lists of modules and operators, commands, figures, requirements."""

from __future__ import annotations

import argparse
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from vogcore.autodiff.table import markdown, updated
from vogcore.cli import main

from .blocks import DOCUMENTS, FENCE, IDS, ROOT, blocks, commands, read

PLATFORMS = [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64")]


def headings(text: str) -> set[str]:
    """Anchors that a reader of the rendered document can link to."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def listed_modules(text: str) -> set[str]:
    """Files in the tables of docs/architecture.md: a heading names the folder, the first cell of a row the file."""
    found, folder = set(), ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"### `([\w/]+)/`.*", line):
            folder = heading[1]
        elif row := re.match(r"\| `([\w/]+\.py)` \| \S", line):
            found.add(f"{folder}/{row[1]}")
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_relative_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", read(path)))
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), f"{target} does not exist"
        assert linked.is_relative_to(ROOT), f"{target} lies outside of the project"
        assert not anchor or anchor in headings(read(linked)), f"{target}: no such heading"


def test_the_readme_links_the_pages() -> None:
    text = read(ROOT / "README.md")
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f"](docs/{path.name})" not in text] == []


@pytest.fixture(scope="module")
def rows():
    """docs/_site/rows.py, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("rows", ROOT / "docs/_site/rows.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_of_results_that_a_page_repeats_are_those_of_the_results(rows) -> None:
    """A figure that is measured anew must not stay behind in a page."""
    page, results = read(rows.PAGE), read(rows.RESULTS)
    assert page == rows.updated(page, results), "run: python docs/_site/rows.py"
    repeated = [
        line for line in page.splitlines() if line in results.splitlines() and re.match(r"\| (?!score|set)\w", line)
    ]
    assert len(repeated) == 6


def test_what_the_page_says_of_the_results_is_so(rows) -> None:
    """Its sentences, as conditions: if one fails after a new measurement, the page has to say something else."""
    found = {match[1]: match[0].split(" | ") for match in rows.ROW.finditer(read(rows.RESULTS))}
    measured = {name: cells[2] for name, cells in found.items() if name.startswith("test, ")}
    assert measured["test, all, vog"] == "lower is harder"
    assert measured["test, all, vog_relative"] == "higher is harder"
    assert (measured["test, early, vog_raw"], measured["test, late, vog_raw"]) == (
        "lower is harder",
        "higher is harder",
    )
    assert abs(float(found["test, all, vog"][3].split()[0])) < 0.3
    relative = [float(cell.strip(" |")) for cell in found["relative VoG, all"][1:]]
    assert relative == sorted(relative)


def test_the_map_lists_every_module_and_no_other() -> None:
    files = [*(ROOT / "vogcore").rglob("*.py"), *(ROOT / "adapters/vogcore_adapters").rglob("*.py")]
    modules = {path.relative_to(ROOT).as_posix() for path in files}
    listed = listed_modules(read(ROOT / "docs/architecture.md"))
    assert sorted(modules - listed) == []
    assert sorted(listed - modules) == []


def test_the_table_of_operators_is_up_to_date() -> None:
    document = read(ROOT / "docs/autodiff.md")
    assert document == updated(document), "run: python -m vogcore.autodiff.table docs/autodiff.md"


def test_every_rule_in_the_table_has_a_formula() -> None:
    rows = re.findall(r"^\| (.+) \| `(\w+)\.py` \|(.*)\|$", markdown(), re.MULTILINE)
    assert len(rows) > 50
    assert [ops for ops, family, formula in rows if not formula.strip()] == []
    assert [f for _, f, _ in rows if not (ROOT / f"vogcore/autodiff/rules/{f}.py").is_file()] == []


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="begin of the table"):
        updated("no table here")


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_commands_are_understood(path: Path, monkeypatch) -> None:
    class Understood(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, arguments=None, namespace=None):
        parse(self, arguments, namespace)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    found = [command for block in blocks(path) if block.language == "sh" for command in commands(block.text)]
    if path.name == "README.md":
        assert len(found) >= 5
    for command in found:
        with pytest.raises(Understood):
            main(command)


def test_make_targets_in_the_documents_exist() -> None:
    known = set(re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), re.MULTILINE))
    for path in DOCUMENTS:
        used = {
            line.split()[1]
            for block in blocks(path)
            if block.language == "sh"
            for line in re.findall(r"^make .*", block.text, re.M)
        }
        assert used <= known, path.name


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads(read(ROOT / "pyproject.toml"))["project"]


def test_every_requirement_can_be_read(project) -> None:
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *(text for extra in extras.values() for text in extra)]:
        requirement = Requirement(text)
        assert len(requirement.specifier) == 1, text


@pytest.mark.parametrize(("system", "machine"), PLATFORMS)
def test_exactly_one_onnx_runtime_is_required(project, system: str, machine: str) -> None:
    def applying(texts: list[str]) -> list[str]:
        requirements = [Requirement(text) for text in texts]
        environment = {"sys_platform": system, "platform_machine": machine}
        names = [r.name for r in requirements if r.marker is None or r.marker.evaluate(environment)]
        return [name for name in names if name in ("onnxruntime", "onnxruntime-gpu")]

    required = applying(project["dependencies"])
    assert len(required) == 1
    for name, texts in project["optional-dependencies"].items():
        assert set(applying(texts)) <= set(required), name
