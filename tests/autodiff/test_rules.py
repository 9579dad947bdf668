"""Every rule of the table against central differences in float64, through the ONNX reference evaluator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.autodiff.cases import CASES, Case
from tests.autodiff.reference import evaluator as evaluator_of
from vogcore.autodiff import vjp_model
from vogcore.autodiff.registry import NO_GRADIENT, RULES, STRAIGHT_THROUGH

STEP = 1e-6


def directional_difference(model: onnx.ModelProto, feeds: dict, names: list[str], rng: np.random.Generator):
    """(directions, cotangent, <cotangent, J direction>) by central differences."""
    evaluator = evaluator_of(model)
    directions = {name: rng.normal(size=feeds[name].shape) for name in names}
    plus = evaluator.run(None, {**feeds, **{n: feeds[n] + STEP * directions[n] for n in names}})[0]
    minus = evaluator.run(None, {**feeds, **{n: feeds[n] - STEP * directions[n] for n in names}})[0]
    cotangent = rng.normal(size=np.shape(plus))
    return directions, cotangent, float(np.sum(cotangent * (plus - minus)) / (2 * STEP))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_rule_agrees_with_central_differences(case: Case) -> None:
    model = case.model()
    names = [f"in{i}" for i in case.wrt]
    feeds = {f"in{i}": case.inputs[i] for i in case.wrt}
    gradient = vjp_model(model, names)
    onnx.checker.check_model(gradient)
    evaluator = evaluator_of(gradient)
    rng = np.random.default_rng(1)
    for _ in range(3):
        directions, cotangent, expected = directional_difference(model, feeds, names, rng)
        results = evaluator.run(None, {**feeds, "vogcore_cotangent": cotangent})[1:]
        for name, result in zip(names, results, strict=True):
            assert result.shape == feeds[name].shape
            assert result.dtype == np.float64
        got = sum(float(np.sum(r * directions[n])) for n, r in zip(names, results, strict=True))
        scale = sum(float(np.sum(np.abs(r * directions[n]))) for n, r in zip(names, results, strict=True))
        assert got == pytest.approx(expected, rel=1e-6, abs=1e-6 * max(scale, 1e-3))


def test_every_rule_has_a_case() -> None:
    # What rounds has no differences to compare with: test_quantise.py compares with torch.
    assert set(RULES) - {case.op for case in CASES} - STRAIGHT_THROUGH == set()


def test_no_operator_has_two_meanings() -> None:
    assert not set(RULES) & NO_GRADIENT
