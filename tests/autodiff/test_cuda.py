"""Every node of a gradient graph has a CUDA kernel, by the shipped table, and the CUDA formulations are right."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import defs

from tests.autodiff.cases import CASES, Case
from tests.autodiff.element_type import in_type
from tests.autodiff.reference import evaluator as evaluator_of
from tests.autodiff.test_models import NETWORKS, build, export, run
from tests.autodiff.test_rules import directional_difference
from vogcore.autodiff import gradient_model, vjp_model
from vogcore.autodiff.registry import RULES
from vogcore.graph.cuda import CLEAN_OPSETS, cuda_fallbacks, has_kernel

# What the gradients of operators consist of that the CUDA provider lacks themselves: STFT, Sinh, Cosh.
WITHOUT_KERNEL = {"Cosh", "DFT", "Sinh"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_node_of_a_gradient_has_a_kernel(case: Case) -> None:
    # An operator of the forward model that has no kernel runs on the CPU with or without a gradient.
    forward = {fallback.name for fallback in cuda_fallbacks(in_type(case.model(), np.float32))}
    model = vjp_model(in_type(case.model(), np.float32), [f"in{i}" for i in case.wrt], lowering="cuda")
    assert [f for f in cuda_fallbacks(model) if f.name not in forward and f.op not in WITHOUT_KERNEL] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_cuda_formulation_agrees_with_central_differences(case: Case) -> None:
    model, names = case.model(), [f"in{i}" for i in case.wrt]
    derived = vjp_model(model, names, lowering="cuda")
    if derived.SerializeToString() == vjp_model(model, names).SerializeToString():
        return  # the formulation that test_rules.py has tested
    onnx.checker.check_model(derived)
    feeds, rng = {f"in{i}": case.inputs[i] for i in case.wrt}, np.random.default_rng(2)
    directions, cotangent, expected = directional_difference(model, feeds, names, rng)
    results = evaluator_of(derived).run(None, {**feeds, "vogcore_cotangent": cotangent})[1:]
    parts = [r * directions[n] for n, r in zip(names, results, strict=True)]
    scale = sum(float(np.abs(part).sum()) for part in parts)
    assert sum(float(part.sum()) for part in parts) == pytest.approx(expected, rel=1e-6, abs=1e-6 * max(scale, 1e-3))


def test_what_lacks_a_kernel_is_listed_truly() -> None:
    assert not [op for op in WITHOUT_KERNEL if has_kernel(op, 18)]


@pytest.mark.parametrize("opset", CLEAN_OPSETS)
def test_clean_opsets_cover_what_18_covers(opset: int) -> None:
    ops = [schema.name for schema in defs.get_all_schemas() if schema.domain == "" and schema.name in RULES]
    assert len(ops) > 70
    assert [op for op in ops if has_kernel(op, 18) and not has_kernel(op, opset)] == []


def test_some_operators_are_not_covered_at_22() -> None:
    assert has_kernel("MaxPool", 18)
    assert not has_kernel("MaxPool", 22)


@pytest.mark.parametrize("opset", [None, 24])
@pytest.mark.parametrize("dynamo", [False, True], ids=["legacy", "dynamo"])
@pytest.mark.parametrize("name", NETWORKS)
def test_exported_networks_stay_on_the_gpu(name: str, dynamo: bool, opset: int | None) -> None:
    network, x = build(name)
    forward = onnx.load_model_from_string(export(network, x, dynamo))
    if opset is not None:
        if not dynamo:
            forward = onnx.version_converter.convert_version(forward, 20)
        forward.opset_import[0].version = opset  # what is in these networks means the same since 20
    model = gradient_model(forward, lowering="cuda")
    assert cuda_fallbacks(model) == []
    assert model.opset_import[0].version in CLEAN_OPSETS
    target = torch.arange(len(x)) % 5
    for got, wanted in zip(run(model, x, target), run(gradient_model(forward), x, target), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5)
