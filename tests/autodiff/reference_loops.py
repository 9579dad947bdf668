"""Loops and recurrent layers for the float64 evaluator, written from the text of the ONNX standard.

onnx's own Loop joins scan outputs instead of stacking them, its Scan knows neither axes nor directions, and its
recurrent operators neither directions nor lengths.
"""

from __future__ import annotations

import numpy as np
from onnx.reference.op_run import OpRun

__all__ = ["LOOPS"]


class Loop(OpRun):
    """Carried values and stacked outputs."""

    def need_context(self) -> bool:
        return True

    def _run(self, trips, condition, *states, context=None, body=None, attributes=None, bindings=None):
        names, count = self.body.input_names, len(states)
        states, rows, step = list(states), [], 0
        going = True if condition is None else bool(np.asarray(condition).reshape(()))
        while going and (trips is None or step < int(np.asarray(trips).reshape(()))):
            given = [np.asarray(step, np.int64), np.asarray(True), *states]
            results = self._run_body({**(context or {}), **dict(zip(names, given, strict=True))}, bindings=bindings)
            going, states = bool(np.asarray(results[0]).reshape(())), list(results[1 : 1 + count])
            rows.append(results[1 + count :])
            step += 1
        if not rows and len(self.body.output_names) > 1 + count:
            raise NotImplementedError("no iteration, so the shapes of the stacked outputs are not known")
        return (*states, *(np.stack(parts) for parts in zip(*rows)))


class Scan(OpRun):
    """Axes and directions of scanned inputs and stacked outputs."""

    def need_context(self) -> bool:
        return True

    def _run(self, *args, context=None, body=None, num_scan_inputs=None, scan_input_axes=None,
             scan_input_directions=None, scan_output_axes=None, scan_output_directions=None, attributes=None,
             bindings=None):  # fmt: skip
        names, count = self.body.input_names, len(args) - num_scan_inputs
        states, scanned = list(args[:count]), args[count:]
        written = len(self.body.output_names) - count
        axes, back = scan_input_axes or [0] * len(scanned), scan_input_directions or [0] * len(scanned)
        out_axes, out_back = scan_output_axes or [0] * written, scan_output_directions or [0] * written
        moved = [np.moveaxis(value, axis, 0)[:: -1 if b else 1] for value, axis, b in zip(scanned, axes, back)]
        rows = []
        for slices in zip(*moved, strict=True):
            given = dict(zip(names, [*states, *slices], strict=True))
            results = self._run_body({**(context or {}), **given}, bindings=bindings)
            states = list(results[:count])
            rows.append(results[count:])
        stacked = [np.stack(parts[:: -1 if b else 1]) for parts, b in zip(zip(*rows), out_back)]
        return (*states, *(np.moveaxis(value, 0, axis) for value, axis in zip(stacked, out_axes)))


def _sigmoid(x, a, b):
    return 1 / (1 + np.exp(-x))


FUNCTIONS = {
    "sigmoid": _sigmoid,
    "tanh": lambda x, a, b: np.tanh(x),
    "relu": lambda x, a, b: np.maximum(x, 0),
    "affine": lambda x, a, b: a * x + b,
    "leakyrelu": lambda x, a, b: np.where(x >= 0, x, a * x),
    "thresholdedrelu": lambda x, a, b: np.where(x > a, x, 0),
    "scaledtanh": lambda x, a, b: a * np.tanh(b * x),
    "hardsigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "elu": lambda x, a, b: np.where(x >= 0, x, a * (np.exp(x) - 1)),
    "softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "softplus": lambda x, a, b: np.log1p(np.exp(x)),
}
ALPHA = {"leakyrelu": 0.01, "hardsigmoid": 0.2, "elu": 1.0, "thresholdedrelu": 1.0, "affine": None, "scaledtanh": None}
BETA = {"hardsigmoid": 0.5, "affine": None, "scaledtanh": None}


def _functions(names, default, alphas, betas, clip):
    # the evaluator gives RNN a default for two directions, whatever the direction is
    names = names if names and len(names) == len(default) else default
    alphas, betas = iter(alphas or []), iter(betas or [])
    bound = np.inf if clip is None else clip
    result = []
    for name in (name.lower() for name in names):
        a = next(alphas, ALPHA[name]) if name in ALPHA else None
        b = next(betas, BETA[name]) if name in BETA else None
        result.append(lambda x, f=FUNCTIONS[name], a=a, b=b: f(np.clip(x, -bound, bound), a, b))
    return result


def _unrolled(run, x, w, lengths, h0, c0, direction, layout, functions):
    """Y, Y_h, Y_c by one example, one step after the other. ``run(d, functions)`` gives the cell of direction d."""
    x = x.transpose(1, 0, 2) if layout else x
    directions = {"forward": [0], "reverse": [1], "bidirectional": [0, 1]}[direction]
    steps, batch, hidden = x.shape[0], x.shape[1], w
    lengths = np.full(batch, steps) if lengths is None else lengths
    state = np.zeros((2, len(directions), batch, hidden))
    for which, initial in enumerate((h0, c0)):
        if initial is not None:
            state[which] = initial.transpose(1, 0, 2) if layout else initial
    y = np.zeros((steps, len(directions), batch, hidden))
    per = len(functions) // len(directions)
    for d, back in enumerate(directions):
        cell = run(d, functions[d * per : (d + 1) * per])
        for b in range(batch):
            order = range(int(lengths[b]))
            for t in reversed(order) if back else order:
                state[0, d, b], state[1, d, b] = cell(x[t, b], state[0, d, b], state[1, d, b])
                y[t, d, b] = state[0, d, b]
    state[:, :, lengths == 0] = 0  # as in ONNX Runtime
    if layout:
        y, state = y.transpose(2, 0, 1, 3), state.transpose(0, 2, 1, 3)
    return y.astype(x.dtype), state[0].astype(x.dtype), state[1].astype(x.dtype)


class _Recurrent(OpRun):
    def _answer(self, results):
        return tuple(results[: len(self.onnx_node.output)])


class RNN(_Recurrent):
    def _run(self, x, w, r, b=None, lengths=None, h0=None, activation_alpha=None, activation_beta=None,
             activations=None, clip=None, direction="forward", hidden_size=None, layout=0):  # fmt: skip
        hidden, count = r.shape[2], w.shape[0]
        functions = _functions(activations, ["Tanh"] * count, activation_alpha, activation_beta, clip)
        b = np.zeros((count, 2 * hidden)) if b is None else b

        def run(d, functions):
            (f,) = functions

            def cell(x, h, c):
                return f(w[d] @ x + r[d] @ h + b[d, :hidden] + b[d, hidden:]), c

            return cell

        return self._answer(_unrolled(run, x, hidden, lengths, h0, None, direction, layout, functions)[:2])


class GRU(_Recurrent):
    def _run(self, x, w, r, b=None, lengths=None, h0=None, activation_alpha=None, activation_beta=None,
             activations=None, clip=None, direction="forward", hidden_size=None, layout=0,
             linear_before_reset=0):  # fmt: skip
        hidden, count = r.shape[2], w.shape[0]
        functions = _functions(activations, ["Sigmoid", "Tanh"] * count, activation_alpha, activation_beta, clip)
        b = np.zeros((count, 6 * hidden)) if b is None else b

        def run(d, functions):
            f, g = functions
            (wz, wr, wh), (rz, rr, rh) = np.split(w[d], 3), np.split(r[d], 3)
            bz, br, bh, cz, cr, ch = np.split(b[d], 6)

            def cell(x, h, c):
                z = f(wz @ x + rz @ h + bz + cz)
                reset = f(wr @ x + rr @ h + br + cr)
                if linear_before_reset:
                    n = g(wh @ x + reset * (rh @ h + ch) + bh)
                else:
                    n = g(wh @ x + rh @ (reset * h) + ch + bh)
                return (1 - z) * n + z * h, c

            return cell

        return self._answer(_unrolled(run, x, hidden, lengths, h0, None, direction, layout, functions)[:2])


class LSTM(_Recurrent):
    def _run(self, x, w, r, b=None, lengths=None, h0=None, c0=None, p=None, activation_alpha=None,
             activation_beta=None, activations=None, clip=None, direction="forward", hidden_size=None, input_forget=0,
             layout=0):  # fmt: skip
        hidden, count = r.shape[2], w.shape[0]
        default = ["Sigmoid", "Tanh", "Tanh"] * count
        functions = _functions(activations, default, activation_alpha, activation_beta, clip)
        free = _functions(activations, default, activation_alpha, activation_beta, None)
        functions[2::3] = free[2::3]  # ONNX Runtime does not clip the cell in front of h, and the text is open to it
        b = np.zeros((count, 8 * hidden)) if b is None else b
        p = np.zeros((count, 3 * hidden)) if p is None else p

        def run(d, functions):
            f, g, h_ = functions
            bias = np.sum(np.split(b[d], 2), axis=0)
            pi, po, pf = np.split(p[d], 3)

            def cell(x, h, c):
                i, o, forget, new = np.split(w[d] @ x + r[d] @ h + bias, 4)
                i = f(i + pi * c)
                forget = 1 - i if input_forget else f(forget + pf * c)
                c = forget * c + i * g(new)
                return f(o + po * c) * h_(c), c

            return cell

        return self._answer(_unrolled(run, x, hidden, lengths, h0, c0, direction, layout, functions))


LOOPS = [Loop, Scan, RNN, GRU, LSTM]
"""Operators to replace those of onnx."""
