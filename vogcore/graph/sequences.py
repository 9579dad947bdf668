"""Write lists of tensors out: older torch exports pass pieces through Sequence operators.

Requires: constants as initializers; shapes inferred as far as possible.
Ensures: sequences whose length and positions are known before the model runs are gone: SequenceConstruct,
SequenceEmpty, SequenceInsert, SequenceErase and SplitToSequence are followed, SequenceAt becomes the tensor itself,
ConcatFromSequence a Concat, SequenceLength a number. Others stay, and are refused by name where they lie on the path.
Value names and outputs stay as they were.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vogcore.graph.shapes import constant, dims, static_dims

__all__ = ["write_out_sequences"]


def write_out_sequences(graph: ir.Graph) -> None:
    """Rewrite the graph in place; see the module."""
    writer = _Writer(graph)
    for node in list(graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        follow = getattr(writer, f"on_{node.op_type}", None)
        if follow is not None:
            follow(node)
    for node in reversed(list(graph)):  # the builders of sequences that nobody reads any more
        if node.outputs[0] in writer.known and not any(
            value.uses() or value.is_graph_output() for value in node.outputs
        ):
            graph.remove(node, safe=True)


class _Writer:
    """Knows the elements of the sequences met so far."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.known: dict[ir.Value, list[ir.Value]] = {}
        self.count = 0

    # -- operators that make sequences ----------------------------------------------------------------------------

    def on_SequenceEmpty(self, node: ir.Node) -> None:
        self.known[node.outputs[0]] = []

    def on_SequenceConstruct(self, node: ir.Node) -> None:
        self.known[node.outputs[0]] = [value for value in node.inputs if value is not None]

    def on_SequenceInsert(self, node: ir.Node) -> None:
        elements, value = self._elements(node), node.inputs[1]
        position = self._position(node, 2, default=None if elements is None else len(elements))
        if elements is None or position is None or value is None:
            return
        if position < 0:
            position += len(elements)
        self.known[node.outputs[0]] = [*elements[:position], value, *elements[position:]]

    def on_SequenceErase(self, node: ir.Node) -> None:
        elements, position = self._elements(node), self._position(node, 1, default=-1)
        if elements is not None and position is not None and -len(elements) <= position < len(elements):
            position %= len(elements)
            self.known[node.outputs[0]] = [*elements[:position], *elements[position + 1 :]]

    def on_Identity(self, node: ir.Node) -> None:
        elements = self._elements(node)
        if elements is not None:
            self.known[node.outputs[0]] = elements

    def on_SplitToSequence(self, node: ir.Node) -> None:
        value, axis = node.inputs[0], self._attribute(node, "axis", 0)
        sizes = dims(value) if value is not None else None
        if value is None or sizes is None:
            return
        axis %= len(sizes)
        lengths, single = self._lengths(node, static_dims(value, [axis]))
        if lengths is None:
            return
        parts = self._insert(node, "Split", [value, self._ints(lengths)], value, len(lengths), {"axis": axis})
        for part, length in zip(parts, lengths, strict=True):
            part.shape = ir.Shape([*sizes[:axis], length, *sizes[axis + 1 :]])
        if single and not self._attribute(node, "keepdims", 1):
            parts = [self._insert(node, "Squeeze", [part, self._ints([axis])], value)[0] for part in parts]
            for part in parts:
                part.shape = ir.Shape([*sizes[:axis], *sizes[axis + 1 :]])
        self.known[node.outputs[0]] = parts

    @staticmethod
    def _lengths(node: ir.Node, size: tuple[int, ...] | None) -> tuple[list[int] | None, bool]:
        """Lengths of the parts where known, and whether the node cuts single slices of its own accord."""
        if len(node.inputs) < 2 or node.inputs[1] is None:
            return ([1] * size[0] if size is not None else None), True
        split = constant(node.inputs[1])
        if split is None:
            return None, False
        if split.ndim == 1:
            return split.tolist(), False
        if size is None:
            return None, False
        step = int(split)
        return [min(step, size[0] - start) for start in range(0, size[0], step)], False

    # -- operators that read them ---------------------------------------------------------------------------------

    def on_SequenceAt(self, node: ir.Node) -> None:
        elements, position = self._elements(node), self._position(node, 1, default=None)
        if elements is not None and position is not None and -len(elements) <= position < len(elements):
            self._replace(node, ir.node("Identity", [elements[position]], name=node.name), elements[position])

    def on_SequenceLength(self, node: ir.Node) -> None:
        elements = self._elements(node)
        if elements is not None:
            length = self._constant(np.asarray(len(elements), np.int64))
            self._replace(node, ir.node("Identity", [length], name=node.name), length)

    def on_ConcatFromSequence(self, node: ir.Node) -> None:
        elements, axis = self._elements(node), self._attribute(node, "axis", 0)
        if not elements:
            return
        if self._attribute(node, "new_axis", 0):
            like = elements[0]
            elements = [self._insert(node, "Unsqueeze", [part, self._ints([axis])], like)[0] for part in elements]
        self._replace(node, ir.node("Concat", elements, {"axis": axis}, name=node.name), None)

    # -- helpers --------------------------------------------------------------------------------------------------

    def _elements(self, node: ir.Node) -> list[ir.Value] | None:
        sequence = node.inputs[0]
        return None if sequence is None else self.known.get(sequence)

    @staticmethod
    def _position(node: ir.Node, index: int, default: int | None) -> int | None:
        if index >= len(node.inputs) or node.inputs[index] is None:
            return default
        content = constant(node.inputs[index])
        return None if content is None else int(content.reshape(-1)[0])

    @staticmethod
    def _attribute(node: ir.Node, name: str, default: int) -> int:
        attribute = node.attributes.get(name)
        return default if attribute is None else attribute.as_int()

    def _name(self, stem: str) -> str:
        taken = set(self.graph.initializers) | {value.name for node in self.graph for value in node.outputs}
        taken |= {value.name for value in self.graph.inputs}
        while True:
            self.count += 1
            if (name := f"{stem}_{self.count}") not in taken:
                return name

    def _constant(self, content: np.ndarray) -> ir.Value:
        name = self._name("sequence_constant")
        value = ir.Value(name=name, const_value=ir.tensor(content, name=name))
        value.shape, value.type = ir.Shape(content.shape), ir.TensorType(ir.DataType.INT64)
        self.graph.register_initializer(value)
        return value

    def _ints(self, numbers: Sequence[int]) -> ir.Value:
        return self._constant(np.asarray(numbers, np.int64))

    def _insert(
        self,
        before: ir.Node,
        op: str,
        inputs: Sequence[ir.Value],
        like: ir.Value,
        count: int = 1,
        attributes: dict[str, int] | None = None,
    ) -> list[ir.Value]:
        """A new node in front of ``before``; its outputs have the type of ``like``."""
        node = ir.node(op, inputs, attributes or {}, num_outputs=count, name=self._name(f"{before.name}/{op}"))
        for value in node.outputs:
            value.name, value.type = self._name(f"{before.name}/{op}"), like.type
        self.graph.insert_before(before, node)
        return list(node.outputs)

    def _replace(self, old: ir.Node, new: ir.Node, like: ir.Value | None) -> None:
        """Put ``new`` in the place of ``old``; shape inference does not look into sequences, so ``like`` knows more."""
        if like is not None:
            old.outputs[0].shape, old.outputs[0].type = like.shape, like.type
        ir.convenience.replace_nodes_and_values(self.graph, old, [old], [new], old.outputs, new.outputs)
