"""The code blocks of the documents run, in the order of each page."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib
import pytest

from vogcore.cli import main

from .blocks import DOCUMENTS, IDS, ROOT, blocks, commands, missing

PAGES = [path for path in DOCUMENTS if any(block.wanted for block in blocks(path))]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """A folder with the files that ``make demo`` leaves."""
    folder = tmp_path_factory.mktemp("documents")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["demo", "--output", "demo-output"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _no_screen():
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
    matplotlib.use(before)


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_examples_run(path: Path, demo: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    shutil.copytree(demo, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    left_out = []
    for number, block in enumerate(blocks(path)):
        if not block.wanted:
            continue
        if lacking := missing(block):
            left_out.append(f"block {number} needs {', '.join(lacking)}")
        elif block.language == "python":
            exec(compile(block.text, f"{path.name}, block {number}", "exec"), {"__name__": "example"})
        else:
            found = commands(block.text)
            assert found, block.text
            for command in found:
                assert main(command) == 0, capsys.readouterr().err
    if left_out:
        pytest.skip("; ".join(left_out))


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_every_python_block_is_run_by_a_test(path: Path) -> None:
    for block in blocks(path):
        if block.language == "python":
            elsewhere = block.marks[:2] == ("run", "in")
            assert block.wanted or elsewhere, f"say how it is run: {block.text[:200]}"
            if elsewhere:
                test, _, name = block.marks[2].partition("::")
                assert f"def {name}(" in (ROOT / test).read_text(encoding="utf-8")
