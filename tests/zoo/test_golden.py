"""Graphs that Keras, TensorFlow and JAX exporters wrote (``make golden``), against those frameworks in float64."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.zoo.entry import Entry, load_folder
from benchmarks.zoo.measure import measure

FOLDER = Path(__file__).parents[1] / "data" / "zoo"
ENTRIES = list(load_folder(FOLDER))


def test_the_files_are_there_and_small() -> None:
    assert {entry.exporter for entry in ENTRIES} == {"Keras export", "tf2onnx", "jax2onnx"}
    assert len(ENTRIES) >= 14
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 300_000


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.slug) for entry in ENTRIES])
def test_gradient_agrees_with_the_framework(entry: Entry) -> None:
    accuracy = measure(entry.build(), in_float64=False)
    assert accuracy.median <= 1e-6
    assert accuracy.p99 <= 1e-5
    assert accuracy.logits is not None
    assert accuracy.logits <= 1e-5
