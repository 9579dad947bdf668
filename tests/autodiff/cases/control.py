"""Branches and loops. Their graphs are written in ONNX's text form; a body reads ``in0``, ``in1``, ... from outside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from tests.autodiff.cases.case import Case, normal


@dataclass
class Program(Case):
    """A graph of several nodes with the output ``out0``, around the operator that is tested."""

    text: str = ""

    @property
    def id(self) -> str:
        return ":".join(
            part for part in (self.op, self.label, f"v{self.opset}", "dynamic" if self.dynamic else "") if part
        )

    def model(self) -> onnx.ModelProto:
        def sizes(i: int) -> str:
            dims = np.shape(self.inputs[i])
            return ",".join(f"N{i}_{a}" if self.dynamic else str(n) for a, n in enumerate(dims))

        inputs = ", ".join(f"double[{sizes(i)}] in{i}" for i in self.wrt)
        header = f'<ir_version: 9, opset_import: ["": {self.opset}]>'
        model = onnx.parser.parse_model(f"{header} case ({inputs}) => (double[] out0) {{ {self.text} }}")
        for i in self.constants:
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(self.inputs[i]), f"in{i}"))
        model.graph.output[0].type.tensor_type.ClearField("shape")
        return model


# A branch reads x and w from outside; the other one only x. The condition hangs on the numbers.
BRANCHES = """
    total = ReduceSum <keepdims = 0> (in0)
    limit = Constant <value = double {LIMIT}> ()
    flag = Greater (total, limit)
    out0 = If (flag) <
        then_branch = yes () => (double[] a) { p = MatMul (in0, in1)  t = Tanh (p)  a = Mul (t, t) },
        else_branch = no () => (double[] b) { e = Exp (in0)  b = Sub (e, in0) }
    >
"""

TWO_OUTPUTS = """
    total = ReduceSum <keepdims = 0> (in0)
    limit = Constant <value = double {LIMIT}> ()
    flag = Greater (total, limit)
    h = Sin (in0)
    p, q = If (flag) <
        then_branch = yes () => (double[] a, double[] c) { a = Mul (h, in1)  c = Identity (h) },
        else_branch = no () => (double[] b, double[] d) { b = Identity (in1)  d = Mul (b, b) }
    >
    out0 = Mul (p, q)
"""

NESTED_IF = """
    total = ReduceSum <keepdims = 0> (in0)
    limit = Constant <value = double {LIMIT}> ()
    flag = Greater (total, limit)
    other = Less (total, limit)
    out0 = If (flag) <
        then_branch = yes () => (double[] a) {
            s = Sigmoid (in0)
            u = If (other) <
                then_branch = yes2 () => (double[] aa) { aa = Mul (s, in1) },
                else_branch = no2 () => (double[] bb) { k = Mul (s, in0) bb = Mul (k, in1) }
            >
            a = Add (u, s)
        },
        else_branch = no () => (double[] b) { b = Mul (in0, in1) }
    >
"""

# h <- tanh(x[k] W + h R); all h are stacked up as well, and the last one is used too.
RNN_LOOP = """
    trips = Constant <value = int64 {4}> ()
    yes = Constant <value = bool {1}> ()
    last, all = Loop (trips, yes, in1) <
        body = step (int64 k, bool go, double[{STATE}] h) => (bool on, double[{STATE}] next, double[{STATE}] row) {
            on = Identity (go)
            x = Gather <axis = 0> (in0, k)
            p = MatMul (x, in2)
            q = MatMul (h, in3)
            s = Add (p, q)
            next = Tanh (s)
            row = Mul (next, x)
        }
    >
    zero = Constant <value = int64[1] {0}> ()
    sum = ReduceSum <keepdims = 0> (all, zero)
    out0 = Add (sum, last)
"""

# While the norm is small: the number of iterations hangs on the numbers, an integer and an invariant are carried.
WHILE = """
    start = Constant <value = int64 {0}> ()
    yes = Constant <value = bool {1}> ()
    count, last, same, unused = Loop (, yes, start, in0, in1, in0) <
        body = step (int64 k, bool go, int64 i, double[{STATE}] h, double[{STATE}] w, double[{STATE}] dead)
            => (bool on, int64 i2, double[{STATE}] h2, double[{STATE}] w2, double[{STATE}] dead2) {
            one = Constant <value = int64 {1}> ()
            i2 = Add (i, one)
            f = Cast <to = 11> (i2)
            a = Mul (h, w)
            c = Mul (a, f)
            half = Constant <value = double {0.5}> ()
            m = Mul (c, half)
            h2 = Add (h, m)
            w2 = Identity (w)
            dead2 = Exp (dead)
            square = Mul (h2, h2)
            norm = ReduceSum <keepdims = 0> (square)
            limit = Constant <value = double {60}> ()
            on = Less (norm, limit)
        }
    >
    out0 = Mul (last, same)
"""

# Two states that change places, and one that only lets the input in.
SWAP = """
    trips = Constant <value = int64 {3}> ()
    a, b, c = Loop (trips, , in0, in1, in0) <
        body = step (int64 k, bool go, double[{STATE}] p, double[{STATE}] q, double[{STATE}] r)
            => (bool on, double[{STATE}] q2, double[{STATE}] p2, double[{STATE}] r2) {
            on = Identity (go)
            q2 = Identity (q)
            s = Sin (p)
            p2 = Add (s, r)
            r2 = Mul (r, in1)
        }
    >
    d = Mul (a, b)
    out0 = Add (d, c)
"""

# A loop with a branch in it, in a loop.
NESTED = """
    trips = Constant <value = int64 {3}> ()
    yes = Constant <value = bool {1}> ()
    last, rows = Loop (trips, yes, in0) <
        body = outer (int64 k, bool go, double[{STATE}] h) => (bool on, double[{STATE}] h2, double[{STATE}] row) {
            on = Identity (go)
            two = Constant <value = int64 {2}> ()
            t = Tanh (h)
            inner_last = Loop (two, go, t) <
                body = inner (int64 j, bool go2, double[{STATE}] v) => (bool on2, double[{STATE}] v2) {
                    on2 = Identity (go2)
                    total = ReduceSum <keepdims = 0> (v)
                    zero = Constant <value = double {0}> ()
                    positive = Greater (total, zero)
                    u = If (positive) <
                        then_branch = up () => (double[] a) { a = Mul (v, in1) },
                        else_branch = down () => (double[] b) { c = Add (v, h) b = Cos (c) }
                    >
                    v2 = Add (u, v)
                }
            >
            h2 = Mul (inner_last, in1)
            row = Mul (h2, t)
        }
    >
    axes = Constant <value = int64[1] {0}> ()
    sum = ReduceSum <keepdims = 0> (rows, axes)
    out0 = Add (sum, last)
"""

# As tf2onnx and jax2onnx write a while loop: the index, the weights and the data are carried, the data are cut at the
# index, and nobody says how often.
INDEXED = """
    start = Constant <value = int32 {0}> ()
    yes = Constant <value = bool {1}> ()
    many = Constant <value = int64 {9223372036854775807}> ()
    x_end, w_end, i_end, last, rows = Loop (many, yes, in0, in2, start, in1) <
        body = step (int64 k, bool go, double[] x, double[] w, int32 i, double[] h)
            => (bool on, double[] x2, double[] w2, int32 i2, double[] h2, double[] row) {
            one = Constant <value = int32 {1}> ()
            limit = Constant <value = int32 {3}> ()
            zero = Constant <value = int64[1] {0}> ()
            axis32 = Constant <value = int32[1] {0}> ()
            i2 = Add (i, one)
            from = Unsqueeze (i, zero)
            to = Unsqueeze (i2, zero)
            cut = Slice (x, from, to, axis32)
            slice = Squeeze (cut, zero)
            other = Sub (limit, i)
            here = Gather <axis = 0> (x, other)
            p = MatMul (slice, w)
            s = Add (p, h)
            h2 = Tanh (s)
            row = Mul (h2, here)
            x2 = Identity (x)
            w2 = Identity (w)
            on = Less (i2, limit)
        }
    >
    axes = Constant <value = int64[2] {0, 1}> ()
    sum = ReduceSum <keepdims = 0> (rows, axes)
    a = MatMul (last, w_end)
    out0 = Add (sum, a)
"""

SCAN = """
    last, all = Scan (in1, in0, in2) <
        num_scan_inputs = 2, scan_input_axes = [AXES], scan_input_directions = [BACK],
        scan_output_axes = [OUT], scan_output_directions = [OUTBACK],
        body = step (double[3] h, double[3] x, double[3] y) => (double[3] next, double[3] row) {
            p = Mul (h, in3)
            q = Add (p, x)
            next = Tanh (q)
            row = Mul (next, y)
        }
    >
    axes = Constant <value = int64[1] {OUTAXIS}> ()
    weights = Constant <value = double[4] {1, 2, 3, 4}> ()
    form = Constant <value = int64[2] {FORM}> ()
    column = Reshape (weights, form)
    weighted = Mul (all, column)
    sum = ReduceSum <keepdims = 0> (weighted, axes)
    out0 = Add (sum, last)
"""


def _scans() -> list[Case]:
    cases = []
    for axes, back, out, out_back in (
        ((0, 0), (0, 0), 0, 0),
        ((0, 1), (1, 0), 1, 0),
        ((1, -1), (1, 1), 0, 1),
        ((0, 0), (0, 1), -1, 1),
    ):
        text = (
            SCAN.replace("AXES", f"{axes[0]}, {axes[1]}")
            .replace("OUTBACK", str(out_back))
            .replace("BACK", f"{back[0]}, {back[1]}")
        )
        text = (
            text.replace("OUTAXIS", str(out)).replace("FORM", "4, 1" if out == 0 else "1, 4").replace("OUT", str(out))
        )
        inputs = [normal(4, 3) if a == 0 else normal(3, 4) for a in axes]
        values = [inputs[0], normal(3), inputs[1], normal(3)]
        label = f"in {axes} {back} out {out} {out_back}"
        cases.append(Program("Scan", values, text=text, label=label))
        cases.append(Program("Scan", values, text=text, label=label, constants=(1, 3), dynamic=True))
    return cases


def _state(text: str, *sizes: object) -> str:
    return text.replace("{STATE}", ",".join(map(str, sizes)))


def _control() -> list[Case]:
    x, w, v = normal(2, 3), normal(3, 3), normal(2, 3)
    cases: list[Case] = []
    for limit in ("-1000.0", "1000.0"):
        branches, two, nested = (t.replace("LIMIT", limit) for t in (BRANCHES, TWO_OUTPUTS, NESTED_IF))
        for dynamic in (False, True):
            cases.append(Program("If", [x, w], text=branches, label=f"branches {limit}", dynamic=dynamic))
            cases.append(Program("If", [x, v], text=two, label=f"two outputs {limit}", dynamic=dynamic))
            cases.append(Program("If", [x, v], text=nested, label=f"nested {limit}", dynamic=dynamic))
    for opset in (18, 21):
        steps = [normal(4, 2, 3), normal(2, 3), 0.5 * w, 0.5 * normal(3, 3)]
        text = _state(RNN_LOOP, 2, 3)
        cases.append(Program("Loop", steps, text=text, label="rnn", opset=opset))
        cases.append(Program("Loop", steps, text=text, label="rnn, constant weights", constants=(2, 3), opset=opset))
    positive = np.abs(v) + 0.2
    for dynamic in (False, True):
        sizes = ("A", "B") if dynamic else (2, 3)
        cases += [
            Program("Loop", steps, text=_state(RNN_LOOP, *sizes), label="rnn", dynamic=dynamic, opset=19),
            Program("Loop", [x, positive], text=_state(WHILE, *sizes), label="while", dynamic=dynamic),
            Program(
                "Loop",
                [x, positive],
                text=_state(WHILE, *sizes),
                label="while, constant",
                constants=(1,),
                dynamic=dynamic,
            ),
            Program("Loop", [*steps[:2], 0.5 * w], text=INDEXED, label="indexed", dynamic=dynamic),
            Program("Loop", [x, v], text=_state(SWAP, *sizes), label="swap", dynamic=dynamic),
            Program("Loop", [x, v], text=_state(NESTED, *sizes), label="nested", dynamic=dynamic),
        ]
    return cases + _scans()


CASES: list[Case] = _control()
