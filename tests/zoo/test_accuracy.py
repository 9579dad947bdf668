"""Every network of the zoo that can be built here: its gradient in ONNX Runtime against its framework's in float64."""

from __future__ import annotations

import pytest

from benchmarks.zoo.catalogue import FRAMEWORKS, available, entries
from benchmarks.zoo.entry import Entry
from benchmarks.zoo.measure import measure

GRAPH_BOUND = 1e-6
"""In float64 only the constants that a float32 model holds are inexact: 1e-30 in place of a step, say."""
WITH_FLOAT64 = ("torch legacy", "onnx test data", "skl2onnx")
"""The graph of a network is checked in float64 once; the other exporters and opsets differ in the forward part."""
HEAVY = ("light_vgg19", "light_bvlc_alexnet", "light_zfnet512")
FLIPPED = 1e-2
"""What a unit within rounding of its kink changes, in an image of 224 by 224 pixels."""
FEW = 3
"""Examples below which one of them decides the median."""

pytest.importorskip("torch", reason="the networks are torch's")


def parameters() -> list:
    installed = [framework for framework in FRAMEWORKS if available(framework) is None]
    return [
        pytest.param(entry, id=entry.slug, marks=[pytest.mark.slow] if entry.model.startswith(HEAVY) else [])
        for entry in entries(installed, short=True)
    ]


@pytest.mark.parametrize("entry", parameters())
def test_gradient_agrees_with_the_framework(entry: Entry) -> None:
    accuracy = measure(entry.build(), in_float64=entry.exporter in WITH_FLOAT64 and entry.opset in (9, 17))
    # Units within rounding of a kink flip, in the framework's own float32 gradients as well. Where they flip in most
    # examples (large images), its own median says what float32 can give. Of a single example it says nothing: whether
    # a unit flips depends on the processor's instructions. Then the same graph in float64 decides, below.
    own = accuracy.own[0] if accuracy.own else 0.0
    single = FLIPPED if accuracy.examples < FEW and accuracy.graph is not None else 0.0
    assert accuracy.median <= max(entry.bound, 3 * own, single)
    assert accuracy.logits is None or accuracy.logits <= max(1e-4, entry.bound)
    if accuracy.graph is not None:
        assert accuracy.graph <= max(GRAPH_BOUND, entry.bound if entry.bound > 1e-3 else 0)  # constants in float16
