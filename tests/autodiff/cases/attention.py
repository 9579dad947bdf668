"""Attention and rotary position embedding."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.autodiff.cases.case import Case, ints, normal

B, S, T, D, E = 2, 3, 4, 4, 5  # examples, queries, keys, features of keys and of values


def _heads(queries: int = 2, keys: int = 2, own: int = T) -> list[Any]:
    return [normal(B, queries, S, D), normal(B, keys, own, D), normal(B, keys, own, E)]


def _flat(queries: int = 2, keys: int = 2) -> list[Any]:
    return [normal(B, S, queries * D), normal(B, T, keys * D), normal(B, T, keys * E)]


def _mask(*shape: int, infinite: bool = False) -> np.ndarray:
    values = normal(*shape)
    return np.where(values < -0.8, -np.inf, values) if infinite else values


# The second query may look at nothing.
ALLOWED = np.asarray([[True, False, True, True], [False] * 4, [True, True, False, True]])


def _attention() -> list[Case]:
    past = [normal(B, 2, 2, D), normal(B, 2, 2, E)]
    few = [normal(B, 1, 2, D), normal(B, 1, 2, E)]
    cases: list[Case] = []
    for dynamic in (False, True):

        def add(inputs: list[Any], opset: int = 23, dynamic: bool = dynamic, **rest: Any) -> None:
            attributes = {k: v for k, v in rest.items() if k not in ("constants", "outputs", "label")}
            rest = {k: v for k, v in rest.items() if k in ("constants", "outputs", "label")}
            cases.append(Case("Attention", inputs, attributes, opset=opset, dynamic=dynamic, **rest))

        add(_heads())
        add(_heads(), constants=(1, 2))
        add(_heads(), constants=(0, 1))
        add(_heads(), scale=0.3, opset=24)
        add(_heads(6, 2))
        add(_heads(3, 1), is_causal=1)
        add(_flat(), q_num_heads=2, kv_num_heads=2)
        add(_flat(6, 2), q_num_heads=6, kv_num_heads=2, is_causal=1, opset=24)
        add(_heads(), softcap=0.7)
        add(_heads(4, 2), softcap=0.7, is_causal=1)
        add([*_heads(), _mask(S, T)], label="float mask")
        add([*_heads(), _mask(B, 1, S, T)], label="float mask")
        add([*_heads(4, 2), _mask(4, S, T)], label="float mask", softcap=1.5)
        add([*_heads(), _mask(B, 2, S, T)], label="float mask", is_causal=1)
        add([*_flat(4, 2), _mask(1, 1, 1, T)], q_num_heads=4, kv_num_heads=2, label="float mask")
        add([*_heads(), _mask(S, T, infinite=True)], constants=(3,), label="infinite mask")
        add([*_heads(), _mask(S, T - 1)], label="short mask", opset=24)
        add([*_heads(), ALLOWED], label="boolean mask")
        add([*_heads(), ALLOWED[:, :3]], label="short boolean mask", opset=24)
        add([*_heads(4, 2), ALLOWED[None, None]], label="boolean mask", is_causal=1, softcap=2.0)
        add([*_heads(own=2), None, *past], label="past")
        add([*_heads(own=2), None, *past], label="past", is_causal=1, outputs=3)
        add([*_heads(own=2), _mask(S, T), *past], label="past", constants=(4, 5), softcap=1.0, is_causal=1)
        add([*_heads(4, 1, own=2), None, *few], label="past", constants=(1, 2), is_causal=1, opset=24)
        add([*_heads(), None, None, None, ints(4, 2)], label="lengths", opset=24)
        add([*_heads(), None, None, None, ints(4, 2)], label="lengths", opset=24, is_causal=1)
        add([*_heads(4, 2), ALLOWED, None, None, ints(3, 2)], label="lengths", opset=24, softcap=1.0, is_causal=1)
        add(_heads(), outputs=4, qk_matmul_output_mode=0)
        add(_heads(), outputs=4, qk_matmul_output_mode=3, is_causal=1)
        add(_heads(), left_window_size=1, right_window_size=1, opset=25)
        add(_heads(4, 2), left_window_size=0, is_causal=1, softcap=1.0, opset=25)
    return cases


def _rotary() -> list[Case]:
    by_position = [normal(7, D // 2), normal(7, D // 2), np.asarray([[0, 2, 1], [6, 5, 5]])]
    by_example = [normal(B, S, D // 2), normal(B, S, D // 2)]
    part = [normal(B, S, 1), normal(B, S, 1)]
    cases: list[Case] = []
    for dynamic in (False, True):
        for interleaved in (0, 1):
            kind: dict[str, Any] = {"interleaved": interleaved}
            rest: dict[str, Any] = {"constants": (1, 2), "opset": 23, "dynamic": dynamic}
            cases += [
                Case("RotaryEmbedding", [normal(B, 2, S, D), *by_position], kind, **rest),
                Case("RotaryEmbedding", [normal(B, 2, S, D), *by_example], kind, **rest),
                Case("RotaryEmbedding", [normal(B, S, 2 * D), *by_example], {**kind, "num_heads": 2}, **rest),
                Case("RotaryEmbedding", [normal(B, 2, S, D), *part], {**kind, "rotary_embedding_dim": 2}, **rest),
            ]
    return cases


CASES: list[Case] = [*_attention(), *_rotary()]
