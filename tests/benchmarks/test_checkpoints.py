"""The benchmark of checkpoints: its arithmetic, and the variant with weights as inputs."""

from __future__ import annotations

import math

import numpy as np
import onnx

from benchmarks.checkpoints import crossover, report, weights_as_inputs
from tests.autodiff.sessions import session
from tests.graph.models import linear, random
from vogcore.autodiff import gradient_model


def test_crossover():
    assert crossover(session=300, constants=10, inputs=13) == 100
    assert crossover(session=300, constants=10, inputs=9) == math.inf


def test_weights_as_inputs_compute_the_same():
    gradient = gradient_model(linear())
    feeds = {"x": random(5, 4), "vogcore_target": np.arange(5) % 3}
    wanted = session(gradient).run(None, feeds)
    model = onnx.load_model_from_string(weights_as_inputs(gradient, ["w", "b"]))
    got = session(model).run(None, {**feeds, "w": random(4, 3), "b": random(3)})
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_report_says_where_the_times_cross():
    figures = dict.fromkeys(
        ("load", "transform", "exchange", "session_constants", "session_inputs", "model_bytes", "gradient_bytes",
         "memory_constants", "memory_inputs"), 1.0)  # fmt: skip
    figures |= {"session_constants": 300.0, "batch_constants": 10.0, "batch_inputs": 13.0}
    record = {
        "created": "2026-01-02T03:04:05", "threads": 2, "rounds": 3, "machine": {"processor": "p", "cores": 2},
        "versions": {"onnxruntime": "1.31"}, "models": {"net": figures},
    }  # fmt: skip
    row = next(line for line in report(record).splitlines() if line.startswith("| net |"))
    assert [cell.strip() for cell in row.strip("|").split("|")][4:9] == ["300", "10.0", "13.0", "1.30", "100"]
