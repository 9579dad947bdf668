"""``vogcore doctor``: what is said, and the exit status; tests/diagnose/test_doctor.py has what is found."""

from __future__ import annotations

import pytest

import vogcore.diagnose
from vogcore.cli.doctor import report
from vogcore.diagnose import Finding

FINE, NOTE = Finding("CPUs", "ok", "2 CPUs"), Finding("CUDA", "note", "some GPU is not used: no library", "install it")
BROKEN = Finding("ONNX Runtime", "broken", "both distributions are installed " * 5, "run this")


@pytest.mark.parametrize(
    ("findings", "status", "verdict"),
    [
        ([FINE], 0, "OK: nothing is broken."),
        ([FINE, NOTE], 0, "OK, but see the notes on: CUDA."),
        ([FINE, NOTE, BROKEN], 1, "BROKEN: ONNX Runtime."),
    ],
)
def test_status_and_verdict(findings, status, verdict, cli, monkeypatch):
    monkeypatch.setattr(vogcore.diagnose, "examine", lambda: findings)
    result = cli("doctor")
    assert (result.status, result.out.splitlines()[-1], result.err) == (status, verdict, "")


def test_every_line_fits_and_says_what_to_do():
    text = report([FINE, NOTE, BROKEN])
    assert max(map(len, text.splitlines())) <= 100
    assert "  note    CUDA          some GPU is not used: no library. To do: install it." in text
    assert "To do: run this." in text
