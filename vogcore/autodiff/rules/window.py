"""Geometry of sliding windows, as convolution and pooling share it."""

from __future__ import annotations

from dataclasses import dataclass

from vogcore.autodiff.registry import Call
from vogcore.graph.shapes import dims, static_dims

__all__ = ["Window", "spatial_rank", "window"]


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window, one entry for each spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """Number of input positions that a dilated kernel spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations))

    @property
    def pads(self) -> list[int]:
        """Padding as ONNX writes it: all begins, then all ends."""
        return [*self.begin, *self.end]


def window(call: Call, kernel: tuple[int, ...]) -> Window:
    """Read strides, dilations and padding of a node; ``auto_pad`` is resolved where the input size is known."""
    n = len(kernel)
    strides = tuple(call.attribute("strides", [1] * n))
    dilations = tuple(call.attribute("dilations", [1] * n))
    pads = call.attribute("pads", [0] * 2 * n)
    auto = call.attribute("auto_pad", "NOTSET")
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    if auto == "VALID":
        pads = [0] * 2 * n
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        if all(s == 1 for s in strides):
            totals = [e - 1 for e in extent]
        else:
            sizes = static_dims(call.x, range(2, 2 + n))
            if sizes is None:
                raise call.unsupported(f"auto_pad={auto} with a stride needs a known image size")
            totals = [max((-(-i // s) - 1) * s + e - i, 0) for i, s, e in zip(sizes, strides, extent)]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = [*small, *large] if auto == "SAME_UPPER" else [*large, *small]
    return Window(kernel, strides, dilations, tuple(pads[:n]), tuple(pads[n:]))


def spatial_rank(call: Call) -> int:
    """Number of spatial axes of the first input."""
    sizes = dims(call.x)
    if sizes is None:
        raise call.unsupported("the rank of its input is not known")
    return len(sizes) - 2
