"""One transformation for all checkpoints of a run: what it gives, and when it does not apply."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.autodiff.test_models import NETWORKS, build, export
from tests.autodiff.test_opsets import cnn
from tests.graph.models import build as build_model
from tests.graph.models import node, random, value
from vogcore.autodiff import gradient_model
from vogcore.autodiff.plan import GradientPlan
from vogcore.graph import dynamic_batch


def others(model: onnx.ModelProto, seed: int, step: str = "9") -> onnx.ModelProto:
    """The same graph with other weights."""
    rng = np.random.default_rng(seed)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim:
            changed = (array + np.abs(rng.normal(size=array.shape))).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    onnx.helper.set_model_props(copy, {"vogcore.step": step})
    return copy


def content(model: onnx.ModelProto) -> tuple:
    """All of a model that means something, the order of initializers aside."""
    tensors = {
        t.name: (t.data_type, tuple(t.dims), numpy_helper.to_array(t).tobytes()) for t in model.graph.initializer
    }
    props = {p.key: p.value for p in model.metadata_props}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.initializer[:]
    del copy.metadata_props[:]
    return tensors, props, copy.SerializeToString(deterministic=True)


@pytest.mark.parametrize("dynamo", [False, True], ids=["legacy", "dynamo"])
@pytest.mark.parametrize("name", NETWORKS)
def test_plan_gives_what_the_transformation_gives(name: str, dynamo: bool) -> None:
    first = onnx.load_model_from_string(export(*build(name), dynamo))
    plan = GradientPlan(first, gradient_model)
    assert content(plan.take()) == content(gradient_model(first))
    for seed in (1, 2):
        forward = others(first, seed)
        applied = plan.apply(forward)
        assert applied is not None
        onnx.checker.check_model(applied)
        assert content(applied) == content(gradient_model(forward))


@pytest.mark.parametrize("opset", [7, 9, 13, 18, 22])
@pytest.mark.parametrize("batch", ["N", 6])
def test_old_files_share_a_plan_too(opset: int, batch: int | str) -> None:
    first = cnn(opset, batch, reshape=True)
    plan = GradientPlan(first, partial(gradient_model, of="margin"))
    forward = others(first, 3)
    applied = plan.apply(forward)
    assert applied is not None
    assert content(applied) == content(gradient_model(forward, of="margin"))


def test_the_batch_may_be_freed_on_the_way() -> None:
    first = cnn(18, 6, reshape=True)

    def make(model: onnx.ModelProto) -> onnx.ModelProto:
        return gradient_model(dynamic_batch(model) or model)

    forward = others(first, 3)
    applied = GradientPlan(first, make).apply(forward)
    assert applied is not None
    assert content(applied) == content(make(forward))


def clipped(bound: float, weight_seed: int = 0, to: tuple[int, ...] = (-1, 4), slope: float = 0.1) -> onnx.ModelProto:
    """A Clip, whose rule looks at its bounds, and a Reshape."""
    return build_model(
        [
            node("MatMul", "x w", "h"),
            node("Clip", "h low high", "c"),
            node("LeakyRelu", "c", "l", alpha=slope),
            node("Reshape", "l to", "z"),
        ],
        [value("x", ["N", 4])],
        [value("z", ["N", 4])],
        {"w": random(4, 4, seed=weight_seed), "low": np.float32(0), "high": np.float32(bound), "to": np.asarray(to)},
    )


def test_content_that_a_rule_read_must_agree() -> None:
    plan = GradientPlan(clipped(6.0), gradient_model)
    assert plan.apply(clipped(6.0, weight_seed=1)) is not None
    assert plan.apply(clipped(5.0)) is None  # Clip(0, 6) is relu6, which has another gradient at its bounds


def test_sizes_attributes_types_and_names_must_agree() -> None:
    plan = GradientPlan(clipped(6.0), gradient_model)
    assert plan.apply(clipped(6.0, to=(0, 4))) is None
    assert plan.apply(clipped(6.0, slope=0.2)) is None
    renamed = clipped(6.0)
    renamed.graph.initializer[0].name = "w2"
    renamed.graph.node[0].input[1] = "w2"
    assert plan.apply(renamed) is None
    half = clipped(6.0)
    half.graph.initializer[0].data_type = onnx.TensorProto.FLOAT16
    assert plan.apply(half) is None


def test_notes_of_the_exporter_do_not_count_and_the_step_is_the_own_one() -> None:
    plan = GradientPlan(clipped(6.0), gradient_model)
    forward = clipped(6.0, weight_seed=3)
    forward.graph.node[0].doc_string = "File ..., line 3"
    onnx.helper.set_model_props(forward, {"vogcore.step": "120"})
    applied = plan.apply(forward)
    assert applied is not None
    props = {p.key: p.value for p in applied.metadata_props}
    assert props == {"vogcore.step": "120", "vogcore.of": "logit", "vogcore.wrt": "x", "vogcore.logits": "z"}


def test_the_first_model_is_handed_out_once() -> None:
    plan = GradientPlan(clipped(6.0), gradient_model)
    plan.take()
    with pytest.raises(ValueError, match="taken already"):
        plan.take()
