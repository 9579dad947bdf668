"""Transposed convolutions: automatic padding, output shapes, weights that depend on the input."""

from __future__ import annotations

from typing import Any

from tests.autodiff.cases.case import Case, normal


def _deconvolutions() -> list[Case]:
    cases = []

    def deconv(x: tuple[int, ...], w: tuple[int, ...], weights: bool = False, dynamic: bool = False, **a: Any) -> None:
        inputs = [normal(*x), normal(*w)]
        if weights:
            inputs.append(normal(w[1] * a.get("group", 1)))
        cases.append(Case("ConvTranspose", inputs, a, constants=() if weights else (1,), dynamic=dynamic))

    for auto in ("SAME_UPPER", "SAME_LOWER"):
        deconv((1, 3, 4, 5), (3, 2, 3, 4), strides=[2, 2], auto_pad=auto)
        deconv((1, 3, 4, 5), (3, 2, 3, 2), strides=[1, 3], auto_pad=auto, dynamic=True)
        deconv((1, 3, 4, 5), (3, 2, 3, 3), strides=[2, 2], auto_pad=auto, output_shape=[8, 9])
    deconv((1, 3, 4, 5), (3, 2, 3, 3), strides=[2, 2], auto_pad="VALID")
    deconv((1, 3, 4, 5), (3, 2, 3, 3), strides=[2, 2], output_shape=[8, 10])
    deconv((1, 3, 4, 5), (3, 2, 3, 3), strides=[2, 2], output_shape=[10, 12])  # longer than the windows reach
    deconv((1, 3, 4, 5), (3, 2, 3, 3), strides=[2, 2], output_shape=[7, 8], output_padding=[1, 0])
    deconv((2, 3, 4, 5), (3, 2, 3, 3), weights=True)
    deconv((2, 3, 4, 5), (3, 2, 3, 2), weights=True, strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 0])
    deconv((2, 3, 4, 5), (3, 2, 2, 2), weights=True, strides=[3, 3], output_padding=[1, 0])
    deconv((2, 4, 4, 5), (4, 3, 3, 2), weights=True, group=2, dilations=[2, 1], strides=[1, 2])
    deconv((2, 3, 6), (3, 2, 3), weights=True, strides=[2], pads=[1, 1])
    deconv((1, 2, 3, 3, 2), (2, 2, 2, 2, 2), weights=True, strides=[2, 1, 1])
    return cases


CASES: list[Case] = _deconvolutions()
