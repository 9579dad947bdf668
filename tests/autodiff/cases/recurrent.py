"""Recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.autodiff.cases.case import Case, normal

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS, BATCH, WIDTH, HIDDEN = 4, 3, 2, 3
NAMES = ("x", "w", "r", "b", "lengths", "h0", "c0", "p")


def layer(op: str, *given: str, lengths: tuple[int, ...] = (), fixed: str = "w r b p", **options: Any) -> Case:
    """A case of a layer with the optional inputs named in ``given``; the inputs in ``fixed`` are constants."""
    attributes = {k: v for k, v in options.items() if k not in ("dynamic", "of", "label", "opset")}
    count = 2 if attributes.get("direction") == "bidirectional" else 1
    gates = GATES[op] * HIDDEN

    def states() -> np.ndarray:
        return normal(BATCH, count, HIDDEN) if attributes.get("layout") else normal(count, BATCH, HIDDEN)

    possible: dict[str, Any] = {
        "x": normal(BATCH, STEPS, WIDTH) if attributes.get("layout") else normal(STEPS, BATCH, WIDTH),
        "w": 0.4 * normal(count, gates, WIDTH),
        "r": 0.4 * normal(count, gates, HIDDEN),
        "b": normal(count, 2 * gates),
        "lengths": np.asarray(lengths, np.int32),
        "h0": states(),
        "c0": states(),
        "p": normal(count, 3 * HIDDEN),
    }
    here = ["x", "w", "r", *given, *(["lengths"] if lengths else [])]
    last = max(NAMES.index(name) for name in here)
    inputs = [possible[name] if name in here else None for name in NAMES[: last + 1]]
    constants = tuple(NAMES.index(name) for name in fixed.split() if name in here)
    return Case(
        op,
        inputs,
        {"hidden_size": HIDDEN, **attributes},
        constants=constants,
        dynamic=options.get("dynamic", False),
        label=options.get("label", "") + ",".join([*given, f"lengths={lengths}" if lengths else ""]),
        opset=options.get("opset", 18),
        outputs=options.get("of", 0) + 1,
        of=options.get("of", 0),
    )


def _layers() -> list[Case]:
    cases = []
    for op in GATES:
        start = ("h0", "c0") if op == "LSTM" else ("h0",)
        names = {"RNN": 1, "GRU": 2, "LSTM": 3}[op]
        cases += [
            layer(op),
            layer(op, "b", *start),
            layer(op, "b", *start, dynamic=True),
            layer(op, "b", direction="reverse"),
            layer(op, "b", *start, direction="bidirectional"),
            layer(op, "b", *start, lengths=(4, 2, 3)),
            layer(op, "b", *start, lengths=(4, 1, 3), direction="reverse", dynamic=True),
            layer(op, *start, lengths=(4, 2, 3), direction="bidirectional"),
            layer(op, "b", *start, lengths=(4, 4, 4)),
            *(layer(op, "b", *start, of=k, lengths=(0, 3, 4)) for k in range(len(start) + 1)),
            layer(op, "b", *start, layout=1),
            layer(op, "b", *start, layout=1, direction="bidirectional", dynamic=True),
            layer(op, "b", *start, clip=0.8),
            layer(op, "b", *start, fixed="", direction="bidirectional", label="weights "),
            layer(op, "b", *start, fixed="", lengths=(4, 2, 3), label="weights "),
            layer(op, "b", opset=22),
            *(layer(op, "b", *start, of=k, direction="bidirectional") for k in range(1, len(start) + 1)),
            *(layer(op, "b", *start, of=k, lengths=(4, 2, 3), layout=1) for k in range(1, len(start) + 1)),
        ]
        for activations, more in (
            (["Relu", "Softsign", "Softplus"], {}),
            (["HardSigmoid", "Affine", "Elu"], {"activation_alpha": [0.3, 0.7, 1.3], "activation_beta": [0.4, 0.1]}),
            (["Softplus", "ScaledTanh", "LeakyRelu"], {"activation_alpha": [1.2, 0.2], "activation_beta": [0.6]}),
            (["ThresholdedRelu", "hardsigmoid", "Tanh"], {"activation_alpha": [0.1]}),
        ):
            chosen = [*activations, *activations][:names] if op != "RNN" else activations[1:2]
            if op == "RNN":
                more = (
                    {k: v[1:2] for k, v in more.items()}
                    if chosen[0] == "Affine"
                    else {k: v[:1] for k, v in more.items() if chosen[0] == "ScaledTanh"}
                )
            cases.append(layer(op, "b", activations=chosen, **more))
    cases += [
        layer("RNN", "b", activations=["Sigmoid"]),
        layer("RNN", "b", activations=["Softplus"]),
        layer("GRU", "b", "h0", linear_before_reset=1),
        layer("GRU", linear_before_reset=1, lengths=(4, 2, 3), direction="bidirectional"),
        layer("GRU", "b", "h0", linear_before_reset=1, layout=1, dynamic=True, clip=0.7),
        layer("GRU", "b", "h0", fixed="", linear_before_reset=1, lengths=(4, 2, 1), label="weights "),
        layer("LSTM", "b", "h0", "c0", "p"),
        layer("LSTM", "b", "h0", "c0", "p", of=2, clip=0.9, direction="reverse", lengths=(4, 2, 3)),
        layer("LSTM", "b", "p", direction="bidirectional", lengths=(2, 4, 3), clip=1.1),
        layer("LSTM", "b", "h0", "c0", "p", fixed="", input_forget=1, label="weights "),
        layer("LSTM", "b", "h0", "c0", "p", fixed="", lengths=(2, 4, 3), label="weights "),
        layer("LSTM", "b", "h0", "c0", input_forget=1, dynamic=True),
        layer("LSTM", "p", input_forget=1, direction="reverse", lengths=(2, 4, 3)),
    ]
    return cases


CASES: list[Case] = _layers()
