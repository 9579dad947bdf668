"""Normalisation layers."""

from __future__ import annotations

import numpy as np

from tests.autodiff.cases.case import Case, normal, positive


def _batch() -> list[Case]:
    def inputs(*shape: int) -> list[np.ndarray]:
        c = shape[1]
        return [normal(*shape), normal(c), normal(c), normal(c), positive(c)]

    constants = (1, 2, 3, 4)
    return [
        Case("BatchNormalization", inputs(2, 3, 4, 4), constants=constants),
        Case("BatchNormalization", inputs(5, 3), {"epsilon": 1e-2}, constants=constants),
        Case("BatchNormalization", inputs(2, 3, 4), constants=constants, dynamic=True),
        Case("BatchNormalization", inputs(2, 3, 4, 2), label="all"),
        Case("BatchNormalization", inputs(4, 3), {"epsilon": 1e-2}, dynamic=True, label="all"),
        Case("BatchNormalization", inputs(2, 3, 4), constants=(0, 1, 2), label="statistics"),
    ]


def _layer() -> list[Case]:
    cases: list[Case] = []
    x = normal(2, 3, 5)
    for dynamic in (False, True):
        cases += [
            Case("LayerNormalization", [x, normal(5), normal(5)], constants=(1, 2), dynamic=dynamic),
            Case(
                "LayerNormalization",
                [x, normal(3, 5)],
                {"axis": 1, "epsilon": 1e-3},
                constants=(1,),
                dynamic=dynamic,
            ),
            Case("LayerNormalization", [x, normal(5), normal(5)], dynamic=dynamic, label="all"),
            Case("LayerNormalization", [x, normal(3, 5), normal(3, 5)], {"axis": -2}, dynamic=dynamic, label="all"),
            Case("LayerNormalization", [x, normal(5), normal(5)], constants=(0, 2), dynamic=dynamic, label="scale"),
            Case("LayerNormalization", [x, normal(5)], {"axis": 0}, constants=(1,), outputs=3, dynamic=dynamic),
            Case("RMSNormalization", [x, normal(5)], constants=(1,), opset=23, dynamic=dynamic),
            Case("RMSNormalization", [x, normal(5)], {"axis": 1, "epsilon": 1e-2}, opset=23, dynamic=dynamic),
            Case("RMSNormalization", [x, normal(3, 1)], {"axis": -2}, opset=23, dynamic=dynamic, label="broadcast"),
            Case("RMSNormalization", [x, normal(3, 5)], {"axis": 0}, opset=23, constants=(0,)),
        ]
    return cases


def _image() -> list[Case]:
    cases: list[Case] = []
    for dynamic in (False, True):
        for x in (normal(2, 4, 3, 2), normal(2, 4, 5)):
            vectors = [normal(4), normal(4)]
            cases += [
                Case("InstanceNormalization", [x, *vectors], constants=(1, 2), dynamic=dynamic),
                Case("InstanceNormalization", [x, *vectors], {"epsilon": 1e-2}, dynamic=dynamic, label="all"),
                Case("InstanceNormalization", [x, *vectors], opset=22, dynamic=dynamic),
                Case(
                    "GroupNormalization", [x, *vectors], {"num_groups": 2}, constants=(1, 2), opset=21, dynamic=dynamic
                ),
                Case("GroupNormalization", [x, *vectors], {"num_groups": 2}, opset=21, dynamic=dynamic, label="all"),
            ]
        cases += [
            Case("GroupNormalization", [normal(3, 4), *vectors], {"num_groups": 2}, opset=21, dynamic=dynamic),
            Case(
                "MeanVarianceNormalization",
                [normal(2, 4, 3, 2)],
                dynamic=dynamic,
            ),
            Case("MeanVarianceNormalization", [normal(2, 4, 5)], {"axes": [-1]}, dynamic=dynamic),
            Case("MeanVarianceNormalization", [normal(2, 4, 5)], {"axes": [1, 2]}, dynamic=dynamic),
        ]
        for p in (1, 2):
            cases += [
                Case("LpNormalization", [normal(2, 4, 3)], {"p": p}, dynamic=dynamic),
                Case("LpNormalization", [normal(2, 4, 3)], {"p": p, "axis": 1}, dynamic=dynamic),
                Case("LpNormalization", [normal(2, 4)], {"p": p, "axis": -2}, opset=22, dynamic=dynamic),
            ]
        for size in (1, 2, 3, 4, 5, 7):
            strong = {"size": size, "alpha": 0.9}
            cases.append(Case("LRN", [normal(2, 5, 3, 2)], strong, dynamic=dynamic))
        cases += [
            Case("LRN", [normal(2, 5, 3, 2)], {"size": 3}, dynamic=dynamic),
            Case("LRN", [normal(1, 3, 2, 2)], {"size": 3, "alpha": 2.0, "beta": 0.5}, dynamic=dynamic),
            Case("LRN", [normal(1, 3, 2, 2)], {"size": 3, "alpha": 2.0, "beta": 1.0, "bias": 0.5}, dynamic=dynamic),
            Case("LRN", [normal(3, 2, 2, 2)], {"size": 3, "alpha": 2.0, "beta": 1.3, "bias": 2.0}, dynamic=dynamic),
        ]
    return cases


CASES: list[Case] = [*_batch(), *_layer(), *_image()]
