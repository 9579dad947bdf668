"""Tests for gradient rules: is a gradient what finite differences say it is?

For users who register a rule of their own (:func:`vogcore.register_vjp`), and for anybody who wants to see the gradient
of a model confirmed. Nothing here is needed to compute gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from vogcore.autodiff.custom import preserved, register_vjp
from vogcore.autodiff.registry import RuleFunction
from vogcore.autodiff.transform import vjp_model
from vogcore.diagnose.differences import compare
from vogcore.errors import SettingsError
from vogcore.graph.load import ModelLike, load_model
from vogcore.graph.names import COTANGENT
from vogcore.runtime import Session

__all__ = ["ENGINES", "check_vjp", "one_node", "temporary_vjp"]

ENGINES = ("reference", "onnxruntime")
"""What runs the graphs: onnx.reference (any type, also float64) or ONNX Runtime on the CPU."""

Function: TypeAlias = "Callable[..., npt.NDArray | tuple[npt.NDArray, ...]]"
Run: TypeAlias = "Callable[[Mapping[str, npt.NDArray]], list[npt.NDArray]]"

_TOLERANCE = {"float64": 1e-6, "float16": 0.1}
_ANY_TOLERANCE = 0.01


def check_vjp(
    model: ModelLike,
    feeds: Mapping[str, npt.NDArray],
    wrt: Sequence[str] | None = None,
    *,
    output: str | None = None,
    functions: Mapping[tuple[str, str], Function] | None = None,
    engine: str = "reference",
    directions: int = 3,
    tolerance: float | None = None,
    seed: int = 0,
    lowering: str = "cpu",
    straight_through: bool = False,
) -> float:
    """Compare the gradient of a model with finite differences.

    For a random cotangent c of the output y and random directions v, the change of <c, y> along v must be the integral
    of its gradient along v. Each input in ``wrt`` is varied by itself.

    Args:
        model: path, bytes or proto of any ONNX model, of one operator for example (:func:`one_node`).
        feeds: every input of the model, by name. float64 is best: differences are then exact to about 1e-8.
        wrt: the inputs to vary; by default all floating-point ones.
        output: the output to differentiate; by default the first.
        functions: (domain, operator) -> Python function of the operator's inputs as arrays and its attributes as
            keywords, for operators that the engine does not know. They need the engine ``"reference"``.
        engine: ``"reference"`` or ``"onnxruntime"``.
        directions: random directions for each input.
        tolerance: largest relative error that passes; by default 1e-6 in float64, 0.01 in float32.
        seed: of the random numbers.
        lowering, straight_through: as for :func:`vogcore.gradient_model`.

    Returns:
        The largest relative error.

    Raises:
        AssertionError: an error is larger, or a gradient has another shape or type than its input.
        ModelError, UnsupportedOpError: as for :func:`vogcore.vjp_model`.
        SettingsError: an option is not possible.
    """
    if engine not in ENGINES:
        raise SettingsError(f"engine={engine!r} is not known; choose one of {', '.join(ENGINES)}.")
    if functions and engine != "reference":
        raise SettingsError("Python functions for operators need engine='reference'.")
    feeds = {name: np.asarray(array) for name, array in feeds.items()}
    names = [name for name, array in feeds.items() if array.dtype.kind == "f"] if wrt is None else list(wrt)
    for name in names:
        if name not in feeds:
            raise SettingsError(f"{name!r} is to be varied and is not among the feeds {', '.join(map(repr, feeds))}.")
    proto = load_model(model)
    index = [value.name for value in proto.graph.output].index(output) if output is not None else 0
    gradient = vjp_model(proto, names, output, lowering=lowering, straight_through=straight_through)
    forward, backward = _runner(proto, engine, functions or {}), _runner(gradient, engine, functions or {})
    rng = np.random.default_rng(seed)
    y = forward(feeds)[index]
    cotangent = rng.standard_normal(y.shape).astype(y.dtype)
    worst = 0.0
    for position, name in enumerate(names):

        def value(moved: npt.NDArray, name: str = name) -> npt.NDArray:
            y = forward({**feeds, name: moved})[index].astype(np.float64)
            return np.asarray([np.sum(cotangent * y)])

        def slope(moved: npt.NDArray, name: str = name, position: int = position) -> npt.NDArray:
            return backward({**feeds, name: moved, COTANGENT: cotangent})[1 + position]

        x, result = feeds[name], slope(feeds[name])
        if result.shape != x.shape or result.dtype != x.dtype:
            raise AssertionError(
                f"The gradient with respect to {name!r} is {result.dtype} of shape {result.shape}, but the input is "
                f"{x.dtype} of shape {x.shape}."
            )
        found = [compare(value, slope, x, rng, by_example=False) for _ in range(directions)]
        # Where rounding hides the derivative, neither way can be told from zero.
        error = float(np.max([0.0 if not one.telling[0] else one.errors[0] for one in found]))
        allowed = tolerance if tolerance is not None else _TOLERANCE.get(x.dtype.name, _ANY_TOLERANCE)
        if not error <= allowed:  # also where it is no number
            raise AssertionError(
                f"The gradient with respect to {name!r} differs from finite differences by {error:.1e}, more than "
                f"{allowed:g}."
            )
        worst = max(worst, error)
    return worst


def one_node(
    domain: str,
    op: str,
    inputs: Sequence[npt.ArrayLike | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    outputs: int = 1,
    version: int = 1,
    opset: int = 18,
    dynamic: bool = False,
) -> tuple[onnx.ModelProto, dict[str, npt.NDArray]]:
    """A model of one operator, and feeds for it.

    Args:
        domain: domain of the operator, "" for ONNX's own.
        op: its type.
        inputs: its inputs. Floating-point arrays become the inputs ``in0``, ``in1``, ... of the model, other arrays
            constants in it; None leaves an input out.
        attributes: its attributes.
        outputs: how many outputs it has, ``out0``, ``out1``, ...; all of the type of its first floating-point input.
        version: version of the domain.
        opset: version of ONNX's own operators, of which rules emit some.
        dynamic: leave the sizes of the inputs open.

    Returns:
        What :func:`check_vjp` takes.
    """
    arrays = [None if value is None else np.asarray(value) for value in inputs]
    names = ["" if array is None else f"in{i}" for i, array in enumerate(arrays)]
    given = [(name, array) for name, array in zip(names, arrays) if array is not None]
    feeds = {name: array for name, array in given if array.dtype.kind == "f"}
    if not feeds:
        raise SettingsError("None of the inputs is a floating-point array, so there is nothing to differentiate.")
    kind = helper.np_dtype_to_tensor_dtype(next(iter(feeds.values())).dtype)
    node = helper.make_node(op, names, [f"out{i}" for i in range(outputs)], op, domain=domain, **(attributes or {}))
    graph = helper.make_graph(
        [node],
        "one node",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim if dynamic else array.shape
            )
            for name, array in feeds.items()
        ],
        [helper.make_tensor_value_info(name, kind, None) for name in node.output],
        [numpy_helper.from_array(array, name) for name, array in given if name not in feeds],
    )
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, version)] if domain else [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=9), feeds


@contextlib.contextmanager
def temporary_vjp(
    domain: str,
    op: str,
    rule: RuleFunction,
    *,
    like: int | None = None,
    broadcasts: bool = False,
    all_outputs: bool = False,
) -> Iterator[None]:
    """Register a gradient rule for the length of a ``with`` block, in place of whatever there is.

    Args:
        domain, op, like, broadcasts, all_outputs: as for :func:`vogcore.register_vjp`.
        rule: the rule.
    """
    with preserved(domain, op):
        options: dict[str, Any] = {"like": like, "broadcasts": broadcasts, "all_outputs": all_outputs}
        register_vjp(domain, op, replace=True, **options)(rule)
        yield


def _runner(model: onnx.ModelProto, engine: str, functions: Mapping[tuple[str, str], Function]) -> Run:
    if engine == "onnxruntime":
        session = Session(model, provider="cpu", threads=1)
        return lambda feeds: session.run(None, {name: feeds[name] for name in session.input_names})
    evaluator = ReferenceEvaluator(model, new_ops=[_operator(*key, call) for key, call in functions.items()])
    return lambda feeds: [np.asarray(value) for value in evaluator.run(None, dict(feeds))]


def _operator(domain: str, op: str, function: Function) -> type[OpRun]:
    """An operator of onnx.reference that calls a Python function."""

    def run(self: Any, *arrays: npt.NDArray | None, **_: Any) -> tuple[npt.NDArray, ...]:
        attributes = {a.name: helper.get_attribute_value(a) for a in self.onnx_node.attribute}
        result = function(*arrays, **attributes)
        return result if isinstance(result, tuple) else (np.asarray(result),)

    return type(op, (OpRun,), {"op_domain": domain, "_run": run})
