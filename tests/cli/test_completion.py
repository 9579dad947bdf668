"""``vogcore completion``: a real bash is asked for completions."""

from __future__ import annotations

import builtins
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vogcore.cli import _COMMANDS

ROOT = Path(__file__).parents[2]
ASK = """
eval "$(vogcore completion bash)"
COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9
read -ra COMP_WORDS <<< "$COMP_LINE"
[[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
complete -p vogcore | grep -o -- '-F [^ ]*' > function
$(cut -d' ' -f2 function) vogcore "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """What bash offers after the beginning of a command line."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    folder = tmp_path_factory.mktemp("shell")
    program = folder / "bin" / "vogcore"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vogcore "$@"\n')
    program.chmod(0o755)
    (folder / "scores.h5").touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{program.parent}:{os.environ['PATH']}"}

    def call(line: str) -> list[str]:
        command = ["bash", "--norc", "--noprofile", "-c", ASK.format(line=line)]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stderr == ""
        return [word.strip() for word in done.stdout.splitlines() if word.strip()]

    return call


def test_commands(ask):
    commands = {name.replace("_", "-") for name in _COMMANDS}
    assert commands <= set(ask("vogcore "))
    assert ask("vogcore comple") == ["completion"]
    assert sorted(ask("vogcore s")) == ["score", "show"]


def test_options_and_their_choices(ask):
    assert sorted(ask("vogcore score --target")) == ["--target", "--target-checkpoint"]
    assert sorted(ask("vogcore score --config x.toml --reduction ")) == ["std", "var"]
    assert ask("vogcore completion f") == ["fish"]
    assert "--verify" in ask("vogcore inspect --")


def test_files(ask):
    assert ask("vogcore show sco") == ["scores.h5"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script(shell, cli):
    result = cli("completion", shell)
    assert (result.status, result.err) == (0, "")
    assert "vogcore" in result.out
    if (program := shutil.which(shell)) is not None:
        check = subprocess.run(
            [program, "-n"], input=result.out, capture_output=True, text=True, timeout=60, check=False
        )
        assert (check.returncode, check.stderr) == (0, "")


def test_an_unknown_shell(cli, tools):
    tools.refused(cli("completion", "tcsh"), "tcsh", "bash")


def test_without_the_package_it_is_said_what_to_install(cli, tools, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "argcomplete":
            raise ImportError
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    tools.refused(cli("completion", "bash"), "argcomplete", "pip install 'vogcore[completion]'")
