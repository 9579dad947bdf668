"""Reading an image at computed positions."""

from __future__ import annotations

import numpy as np

from tests.autodiff.cases.case import RNG, Case, ints, normal, within


def _grids() -> list[Case]:
    cases = []
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            for corners in (0, 1):
                attributes = {"mode": mode, "padding_mode": padding, "align_corners": corners}
                inputs = [normal(2, 3, 4, 5), within(-1.6, 1.6, 2, 3, 4, 2)]
                cases.append(Case("GridSample", inputs, attributes, opset=16, dynamic=padding == "border"))
    volume = [normal(1, 2, 3, 4, 2), within(-1.3, 1.3, 1, 2, 3, 2, 3)]
    for mode in ("linear", "nearest"):
        for padding in ("zeros", "reflection"):
            cases.append(Case("GridSample", volume, {"mode": mode, "padding_mode": padding}, opset=20))
    image, points = normal(2, 3, 4, 5), within(-1.2, 1.2, 2, 3, 4, 2)
    cases += [
        Case("GridSample", [image, points], constants=(1,), opset=20),
        Case("GridSample", [image, points], {"mode": "cubic"}, constants=(0,), opset=20),
        Case("GridSample", [normal(1, 1, 1, 3), points[:1]], {"padding_mode": "reflection", "align_corners": 1},
             constants=(1,), opset=20, label="one pixel"),
    ]  # fmt: skip
    for corners in (0, 1):
        attributes = {"align_corners": corners}
        cases += [
            Case("AffineGrid", [normal(2, 2, 3), ints(2, 3, 4, 5)], attributes, opset=20),
            Case("AffineGrid", [normal(2, 3, 4), ints(2, 3, 2, 3, 4)], attributes, opset=20, dynamic=True),
        ]
    return cases


def _regions() -> list[Case]:
    cases = []
    low = RNG.uniform(-2, 6, (5, 2))
    rois = np.concatenate([low, low + RNG.uniform(0.2, 8, (5, 2))], axis=1)
    for dynamic in (False, True):
        for coordinates in ("half_pixel", "output_half_pixel"):
            attributes = {
                "output_height": 2,
                "output_width": 3,
                "sampling_ratio": 2,
                "spatial_scale": 0.7,
                "coordinate_transformation_mode": coordinates,
            }
            inputs = [normal(3, 2, 6, 5), rois, ints(0, 2, 2, 0, 2)]
            cases.append(Case("RoiAlign", inputs, attributes, constants=(1,), dynamic=dynamic))
    old = {"output_height": 2, "output_width": 2, "sampling_ratio": 3, "mode": "avg"}
    cases.append(Case("RoiAlign", [normal(1, 2, 6, 5), rois, ints(0, 0, 0, 0, 0)], old, constants=(1,), opset=10))
    return cases


CASES: list[Case] = [*_grids(), *_regions()]
