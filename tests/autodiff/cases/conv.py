"""Convolutions."""

from __future__ import annotations

from typing import Any

from tests.autodiff.cases.case import Case, normal


def _convolutions() -> list[Case]:
    cases = []

    def conv(x: tuple[int, ...], w: tuple[int, ...], dynamic: bool = False, **attributes: Any) -> None:
        inputs = [normal(*x), normal(*w), normal(w[0])]
        cases.append(Case("Conv", inputs, attributes, constants=(1,), dynamic=dynamic))

    conv((2, 3, 7, 6), (4, 3, 3, 3))
    conv((2, 3, 7, 6), (4, 3, 1, 1))
    conv((2, 3, 7, 6), (4, 3, 3, 2), pads=[1, 0, 1, 1])
    conv((2, 3, 7, 6), (4, 3, 3, 3), pads=[3, 3, 3, 3])  # padding wider than the kernel reaches
    conv((1, 3, 9, 8), (2, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    conv((1, 3, 9, 8), (2, 3, 3, 3), strides=[2, 3])
    conv((1, 3, 9, 8), (2, 3, 1, 1), strides=[2, 2])
    conv((1, 3, 9, 8), (2, 3, 3, 3), dilations=[2, 1], pads=[2, 1, 2, 1])
    conv((1, 3, 9, 8), (2, 3, 3, 3), dilations=[2, 2], strides=[2, 2])
    conv((2, 4, 6, 6), (6, 2, 3, 3), group=2, pads=[1, 1, 1, 1])
    conv((2, 4, 6, 6), (4, 1, 3, 3), group=4, pads=[1, 1, 1, 1], strides=[2, 2])
    conv((2, 4, 6, 6), (8, 1, 3, 3), group=4)
    conv((2, 3, 8), (4, 3, 3), pads=[1, 1])
    conv((1, 2, 5, 4, 4), (3, 2, 2, 2, 2), strides=[1, 2, 1])
    conv((2, 3, 7, 6), (4, 3, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    conv((2, 3, 7, 6), (4, 3, 2, 2), auto_pad="SAME_LOWER")
    conv((2, 3, 7, 6), (4, 3, 3, 3), auto_pad="VALID")
    conv((2, 3, 7, 6), (4, 3, 3, 3), dynamic=True, pads=[1, 1, 1, 1])
    conv((2, 3, 8, 6), (4, 3, 3, 3), dynamic=True, pads=[1, 0, 0, 1], strides=[2, 2])

    cases += [
        Case(
            "Conv", [normal(2, 3, 7, 6), normal(4, 3, 3, 3)], {"pads": [1, 1, 0, 0], "strides": [2, 1]}, label="weights"
        ),
        Case("Conv", [normal(2, 4, 5, 5), normal(4, 2, 3, 3), normal(4)], {"group": 2}, label="weights"),
    ]

    def deconv(x: tuple[int, ...], w: tuple[int, ...], **attributes: Any) -> None:
        cases.append(Case("ConvTranspose", [normal(*x), normal(*w)], attributes, constants=(1,)))

    deconv((1, 3, 4, 5), (3, 2, 3, 3))
    deconv((1, 3, 4, 5), (3, 2, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
    deconv((1, 3, 4, 5), (3, 2, 2, 2), strides=[2, 2])
    deconv((1, 3, 4, 5), (3, 2, 2, 2), strides=[3, 3], output_padding=[1, 0])
    deconv((1, 4, 4, 5), (4, 2, 3, 3), group=2, dilations=[2, 1])
    return cases


CASES: list[Case] = _convolutions()
