"""Resampling of images."""

from __future__ import annotations

import numpy as np

from tests.autodiff.cases.case import Case, ints, normal

COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def _scales(*numbers: float) -> np.ndarray:
    return np.asarray(numbers, np.float32)


def _resizes() -> list[Case]:
    x = normal(1, 2, 4, 5)
    cases = []

    def scaled(*numbers: float, dynamic: bool = False, opset: int = 18, **attributes: object) -> None:
        data = x if len(numbers) == 4 else normal(2, 3, 4, 3, 2)
        newest = 19 if attributes.get("coordinate_transformation_mode") == "half_pixel_symmetric" else opset
        roi = [] if opset == 10 else [_scales()] if opset == 11 else [None]
        cases.append(Case("Resize", [data, *roi, _scales(*numbers)], attributes, dynamic=dynamic, opset=newest))

    def sized(*numbers: int, dynamic: bool = False, opset: int = 18, **attributes: object) -> None:
        cases.append(Case("Resize", [x, None, None, ints(*numbers)], attributes, dynamic=dynamic, opset=opset))

    for coordinates in COORDINATES:
        for rounding in ROUNDINGS:
            for scale in (2.0, 3.0, 1.6, 0.6):
                scaled(1, 1, scale, 2, coordinate_transformation_mode=coordinates, nearest_mode=rounding)
        for mode in ("linear", "cubic"):
            scaled(1, 1, 2, 0.6, mode=mode, coordinate_transformation_mode=coordinates)
            scaled(1, 1, 1.6, 2, mode=mode, coordinate_transformation_mode=coordinates, dynamic=True)
            scaled(1, 1, 0.5, 0.4, mode=mode, coordinate_transformation_mode=coordinates, antialias=1)
            scaled(1, 1, 0.3, 3, mode=mode, coordinate_transformation_mode=coordinates)
    scaled(1, 1, 2, 2, dynamic=True)
    scaled(1, 1, 2, 1, dynamic=True, coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    scaled(1, 1, 2, 1.5, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5)
    scaled(1, 1, 0.5, 0.6, mode="cubic", exclude_outside=1, antialias=1)
    scaled(1, 1, 2, 2, mode="nearest", opset=11)
    scaled(1, 1, 2, 1.5, mode="linear", opset=10)
    for numbers in ((1, 1, 2, 3), (1, 1, 1.6, 2), (1, 1, 0.6, 1), (1, 1, 0.5, 0.3)):
        scaled(*numbers, mode="nearest", opset=10)
    scaled(1, 1, 1.6, 2, mode="linear", opset=10)
    scaled(1, 1, 2, 2, 3, nearest_mode="floor", coordinate_transformation_mode="asymmetric")
    scaled(1, 1, 2, 1.5, 2, mode="linear")
    scaled(1, 1, 2, 1.5, 2, mode="linear", dynamic=True)
    cases.append(Case("Resize", [normal(1, 3, 4, 2), None, _scales(1, 2, 1.5, 1)], {"mode": "linear"}, label="nhwc"))
    cases.append(Case("Resize", [normal(1, 3, 4, 2), None, _scales(1, 2, 3, 1)], label="nhwc"))
    cases.append(Case("Resize", [normal(3, 4), None, _scales(2, 1.5)], {"mode": "linear"}))
    cases.append(Case("Resize", [x, None, _scales(2, 1.5)], {"mode": "linear", "axes": [2, 3]}))
    for dynamic in (False, True):
        sized(1, 2, 8, 10, dynamic=dynamic)
        sized(1, 2, 8, 7, dynamic=dynamic, mode="linear", coordinate_transformation_mode="align_corners")
        sized(1, 2, 3, 1, dynamic=dynamic, mode="linear", coordinate_transformation_mode="pytorch_half_pixel")
        sized(1, 2, 7, 3, dynamic=dynamic, mode="cubic")
        cases.append(Case("Resize", [x, None, None, ints(7, 3)], {"mode": "cubic", "axes": [2, 3]}, dynamic=dynamic))
        roi = np.asarray([0, 0, 0.2, -0.3, 1, 1, 0.7, 1.2], np.float32)
        crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 2.0}
        cases += [
            Case("Resize", [x, roi, None, ints(1, 2, 5, 6)], {**crop, "mode": mode}, dynamic=dynamic)
            for mode in ("linear", "nearest")
        ]
    upsample = [x, _scales(1, 1, 2, 3)]
    for mode in ("nearest", "linear"):
        cases += [
            Case("Upsample", upsample, {"mode": mode}, opset=9),
            Case("Upsample", [x], {"mode": mode, "scales": [1.0, 1.0, 2.0, 3.0]}, opset=7),
        ]
    return cases


CASES: list[Case] = _resizes()
