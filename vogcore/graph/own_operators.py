"""Operators that the user has written a gradient rule for, as the preparation of a graph has to know them.

Requires: a model proto, and what is known of those operators.
Ensures: shape inference passes through them where it is known that an output looks like an input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import onnx
from onnx import helper

__all__ = ["NONE", "OwnOperators", "restore", "stand_ins"]

OwnOperators: TypeAlias = Mapping[tuple[str, str], int | None]
"""(domain, operator) -> position of the input whose type and shape the first output has; None where there is none."""

NONE: OwnOperators = {}


def stand_ins(model: onnx.ModelProto, own: OwnOperators) -> list[tuple[int, onnx.NodeProto]]:
    """Put an Identity in place of every node whose output looks like one of its inputs.

    ONNX infers nothing for operators that it does not know, and nothing behind them either.

    Returns:
        The nodes and their positions, for :func:`restore`.
    """
    replaced = []
    for index, node in enumerate(model.graph.node):
        like = own.get((node.domain, node.op_type))
        if like is None or like >= len(node.input) or not node.input[like] or not node.output:
            continue
        original = onnx.NodeProto()
        original.CopyFrom(node)
        replaced.append((index, original))
        node.CopyFrom(helper.make_node("Identity", [node.input[like]], [node.output[0]]))
    return replaced


def restore(model: onnx.ModelProto, replaced: Sequence[tuple[int, onnx.NodeProto]]) -> onnx.ModelProto:
    """Put the nodes back that :func:`stand_ins` took out."""
    for index, node in replaced:
        model.graph.node[index].CopyFrom(node)
    return model
