"""Random input for a model of which nothing is known but its graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vogcore.errors import ModelError, SettingsError
from vogcore.graph.shapes import dims, is_float, static_dims

__all__ = ["index_limits", "random_feeds", "sizes_to_try"]

_MOVES_NUMBERS = {
    "Cast", "Concat", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze",
}  # fmt: skip
"""Operators behind which an index is still the same index."""

_IMAGE_SIZES = (32, 64, 128, 224, 299)
_OTHER_SIZES = (8, 16, 32, 64, 128)


def index_limits(graph: ir.Graph) -> dict[str, int]:
    """Integer inputs that index a table of known length (tokens, positions) -> the smallest such length."""
    found: dict[str, int] = {}
    for value in graph.inputs:
        if value.name is None or is_float(value):
            continue
        lengths = list(_tables(value, set()))
        if lengths:
            found[value.name] = min(lengths)
    return found


def _tables(value: ir.Value, seen: set[ir.Value]) -> Iterator[int]:
    if value in seen:
        return
    seen.add(value)
    for node, index in value.uses():
        if node.op_type == "Gather" and index == 1 and node.inputs[0] is not None:
            axis = node.attributes.get("axis")
            sizes = static_dims(node.inputs[0])
            if sizes:
                yield sizes[axis.as_int() if axis is not None else 0]
        elif node.op_type in _MOVES_NUMBERS and index == 0:
            for output in node.outputs:
                yield from _tables(output, seen)


def sizes_to_try(graph: ir.Graph) -> Sequence[int]:
    """Sizes for axes other than the first that the inputs leave open; one alone where they leave none."""
    shapes = [dims(value) or () for value in graph.inputs]
    if all(isinstance(size, int) for shape in shapes for size in shape[1:]):
        return (1,)
    return _IMAGE_SIZES if any(len(shape) >= 4 for shape in shapes) else _OTHER_SIZES


def random_feeds(
    inputs: Sequence[ir.Value],
    rng: np.random.Generator,
    *,
    examples: int,
    free_size: int,
    limits: Mapping[str, int],
    shapes: Mapping[str, Sequence[int]],
) -> dict[str, npt.NDArray]:
    """A value for every input.

    Floats are drawn from the standard normal distribution, indices from the table that they index; other integers and
    booleans are ones, which every mask allows.

    Args:
        inputs: inputs of a graph.
        rng: source of the numbers.
        examples: size of a first axis that is open.
        free_size: size of any other open axis.
        limits: of :func:`index_limits`.
        shapes: shapes that the caller prescribes.

    Raises:
        ModelError: an input has a type that cannot be made up.
        SettingsError: a prescribed shape is of no input, or does not fit it.
    """
    names = [value.name for value in inputs]
    for name in shapes:
        if name not in names:
            listed = ", ".join(repr(known) for known in names)
            raise SettingsError(f"A shape is given for {name!r}, but the inputs of the model are {listed}.")
    feeds = {}
    for value in inputs:
        name = value.name or ""
        shape = _shape(value, examples, free_size, shapes.get(name))
        if is_float(value) and value.dtype != ir.DataType.BFLOAT16:
            feeds[name] = rng.standard_normal(shape).astype(value.dtype.numpy())  # type: ignore[union-attr]
        elif value.dtype is not None and value.dtype.is_integer():
            dtype = value.dtype.numpy()
            limit = limits.get(name)
            feeds[name] = rng.integers(0, limit, shape).astype(dtype) if limit else np.ones(shape, dtype)
        elif value.dtype == ir.DataType.BOOL:
            feeds[name] = np.ones(shape, np.bool_)
        else:
            kind = value.dtype.name.lower() if value.dtype is not None else "unknown"
            raise ModelError(f"no random values can be made for the input {name!r} of type {kind}")
    return feeds


def _shape(value: ir.Value, examples: int, free_size: int, given: Sequence[int] | None) -> tuple[int, ...]:
    sizes = dims(value) or ()
    if given is None:
        return tuple(
            size if isinstance(size, int) else examples if axis == 0 else free_size for axis, size in enumerate(sizes)
        )
    fits = value.shape is None or (
        len(given) == len(sizes)
        and all(not isinstance(size, int) or size == got for size, got in zip(sizes, given, strict=True))
    )
    if not fits or any(size < 1 for size in given):
        shown = ", ".join("?" if size is None else str(size) for size in sizes)
        raise SettingsError(
            f"The shape ({', '.join(map(str, given))}) does not fit the input {value.name!r}, which has the shape "
            f"({shown})."
        )
    return tuple(given)
