"""One node with its attributes and the values of its inputs."""

from __future__ import annotations

from typing import Any

import onnx
import torch

__all__ = ["Node"]


class Node:
    """What an operator's function gets."""

    def __init__(
        self, proto: onnx.NodeProto, inputs: list[torch.Tensor | None], opset: int, dtype: torch.dtype
    ) -> None:
        self.op, self.opset, self.outputs = proto.op_type, opset, len(proto.output)
        self.inputs, self.dtype = inputs, dtype
        self._attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}

    def __getitem__(self, index: int) -> torch.Tensor:
        """An input that must be there."""
        value = self.inputs[index]
        if value is None:
            raise ValueError(f"{self.op}: input {index} is missing")
        return value

    def optional(self, index: int) -> torch.Tensor | None:
        """An input that may be left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute; text as ``str``."""
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def ints(self, name: str, index: int, default: list[int] | None = None) -> list[int] | None:
        """Integers that are an attribute in old opsets and input ``index`` in newer ones."""
        given = self.optional(index)
        if given is not None:
            return [int(number) for number in given.reshape(-1).tolist()]
        value = self.attribute(name)
        return default if value is None else list(value)
