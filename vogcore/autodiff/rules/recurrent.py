"""Recurrent layers. Only what one step needs from the next runs in a loop; the rest is done for all steps at once."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.autodiff.rules._recurrent_layer import Layer, P, Run
from vogcore.autodiff.subgraph import scan
from vogcore.graph.emit import Emitter

Steps = tuple[list[ir.Value], list[ir.Value]]


def _plus(emit: Emitter, left: ir.Value, right: ir.Value | None) -> ir.Value:
    return left if right is None else emit.op("Add", left, right, like=left)


def _present(*values: ir.Value | None) -> list[ir.Value]:
    return [value for value in values if value is not None]


@rule("RNN", all_outputs=True)
def rnn(call: Call) -> Cotangents:
    """h_t = f(a), a = W x_t + R h_(t-1) + b (ONNX; Elman 1990). From the last step back, dh gathers dY_t and
    what step t+1 left; da = dh f'(a); dh_(t-1) = da R; dx_t = da W for all t at once."""
    layer = Layer(call, ["Tanh"])
    for run in layer.runs:
        (f,) = run.functions
        a = run.gate(0) if layer.clip is not None else run.y
        factor = layer.valid(layer.slope(f, a, run.y))
        dy, beyond = run.d_sequence(), layer.beyond()

        def step(emit: Emitter, states: Sequence[ir.Value], slices: Sequence[ir.Value], run: Run = run) -> Steps:
            rest = list(slices)
            slope = rest.pop(0)
            keep = rest.pop() if layer.mask is not None else None
            dh = _plus(emit, states[0], rest[0] if rest else None)
            da = emit.op("Mul", dh, slope, like=dh)
            return [layer.add_recurrent(emit, dh, keep, emit.op("MatMul", da, run.r, like=dh))], [da]

        streams = [factor, *_present(dy, beyond)]
        run.d_h0, run.d_pre = scan(layer.emit, step, [run.d_final(1)], streams, not run.backwards)
        run.d_recurrent = run.d_pre
    return layer.results()


@rule("GRU", all_outputs=True)
def gru(call: Call) -> Cotangents:
    """h_t = (1 - z) n + z h_(t-1) with gates z, r and n = g(W x + r (R h + b)), or g(W x + R (r h) + b) where
    linear_before_reset is 0 (ONNX; Cho et al. 2014). dn = dh (1-z), dz = dh (h_(t-1) - n), and on through the gates."""
    layer = Layer(call, ["Sigmoid", "Tanh"])
    for run in layer.runs:
        _gru_run(layer, run, bool(call.attribute("linear_before_reset", 0)))
    return layer.results()


def _gru_run(layer: Layer, run: Run, after_product: bool) -> None:
    emit, mul, h = layer.emit, layer.mul, layer.hidden
    f, g = run.functions
    a_z, a_r = run.gate(0), run.gate(1)
    z, r = layer.activated(f, a_z), layer.activated(f, a_r)
    if after_product:
        rows = run.from_state(run.before_rows, 2, 3, next(iter(run.biases(2, 3, input_=False)), None))
        inner = layer.steps(rows, h)
        own = layer.steps(run.from_input(2, 3, *run.biases(2, 3, state=False)), h)
        a_n = emit.op("Add", own, mul(r, inner), like=r)
    else:
        inner = mul(r, run.before)
        rows = run.from_state(layer.rows(inner), 2, 3, run.from_input(2, 3, *run.biases(2, 3)))
        a_n = layer.steps(rows, h)
    n = layer.activated(g, a_n)
    # Everything is linear in dh; the factors of all steps are computed at once.
    dz = layer.valid(mul(emit.op("Sub", run.before, n, like=n), layer.slope(f, a_z, z)))
    rest = emit.op("Sub", emit.scalar(1.0, z), z, like=z)
    dn = layer.valid(mul(rest, layer.slope(g, a_n, n)))
    dy, keep = run.d_sequence(), layer.kept(z)
    slope_r = layer.slope(f, a_r, r)
    if after_product:
        dr = mul(mul(dn, inner), slope_r)
        factors = emit.op("Concat", dz, dr, mul(dn, r), axis=2)
        factors.shape = layer.wide_shape(3)

        def step(emit: Emitter, states: Sequence[ir.Value], slices: Sequence[ir.Value]) -> Steps:
            dh = _plus(emit, states[0], slices[2] if len(slices) > 2 else None)
            da = emit.op("Mul", emit.op("Concat", dh, dh, dh, axis=1), slices[0], like=slices[0])
            direct = emit.op("Mul", dh, slices[1], like=dh)
            return [emit.op("Add", emit.op("MatMul", da, run.r, like=dh), direct, like=dh)], [dh, da]

        streams = [factors, keep, *_present(dy)]
        run.d_h0, dh, run.d_recurrent = scan(emit, step, [run.d_final(1)], streams, not run.backwards)
        run.d_pre = emit.op("Concat", mul(dh, dz), mul(dh, dr), mul(dh, dn), axis=2)
        return

    slope_r = mul(slope_r, run.before)
    r_n, r_zr = run.gates(run.r, 2, 3), run.gates(run.r, 0, 2)

    def step_before(emit: Emitter, states: Sequence[ir.Value], slices: Sequence[ir.Value]) -> Steps:
        z_factor, n_factor, r_factor, reset, direct = slices[:5]
        dh = _plus(emit, states[0], slices[5] if len(slices) > 5 else None)
        da_z, da_n = emit.op("Mul", dh, z_factor, like=dh), emit.op("Mul", dh, n_factor, like=dh)
        product = emit.op("MatMul", da_n, r_n, like=dh)  # cotangent of r h
        both = emit.op("Concat", da_z, emit.op("Mul", product, r_factor, like=dh), axis=1)
        total = emit.op("Add", emit.op("MatMul", both, r_zr, like=dh), emit.op("Mul", product, reset, like=dh), like=dh)
        total = emit.op("Add", total, emit.op("Mul", dh, direct, like=dh), like=dh)
        return [total], [emit.op("Concat", both, da_n, axis=1)]

    streams = [dz, dn, slope_r, r, keep, *_present(dy)]
    run.d_h0, run.d_pre = scan(emit, step_before, [run.d_final(1)], streams, not run.backwards)
    run.d_recurrent = run.d_pre
    run.reset_rows = layer.rows(inner)


@rule("LSTM", all_outputs=True)
def lstm(call: Call) -> Cotangents:
    """c_t = f c_(t-1) + i g, h_t = o tanh(c_t) with gates i, o, f, g (ONNX; Hochreiter and Schmidhuber 1997, Gers et
    al. 2000). dc gathers dh o (1 - tanh²(c_t)) and what step t+1 left, f dc; then di = dc g, do = dh tanh(c_t),
    df = dc c_(t-1), dg = dc i."""
    layer = Layer(call, ["Sigmoid", "Tanh", "Tanh"])
    for run in layer.runs:
        _lstm_run(layer, run)
    return layer.results()


def _lstm_run(layer: Layer, run: Run) -> None:
    call, emit, mul = layer.call, layer.emit, layer.mul
    f, g, h = run.functions
    coupled = bool(call.attribute("input_forget", 0))
    peepholes = call.optional(P)
    p_i = p_o = p_f = None
    if peepholes is not None:
        weights = layer.direction(peepholes, run.index, 0)
        p_i, p_o, p_f = (run.gates(weights, k, k + 1) for k in range(3))
    a_i, a_o, a_f, a_c = run.gate(0), run.gate(1), None if coupled else run.gate(2), run.gate(3)
    new = layer.activated(g, a_c)
    c0 = run.state(call.optional(6))

    def seen(gate: ir.Value, weight: ir.Value | None, cell: ir.Value, at: Emitter = emit) -> ir.Value:
        """A gate that looks at the cell through a peephole."""
        return gate if weight is None else at.op("Add", gate, at.op("Mul", cell, weight, like=cell), like=gate)

    def forget(i: ir.Value, gate: ir.Value | None, at: Emitter = emit) -> ir.Value:
        if gate is None:
            return at.op("Sub", at.scalar(1.0, i), i, like=i)
        return layer.activated(f, gate, at)

    if peepholes is None:
        i = layer.activated(f, a_i)
        keep = forget(i, a_f)

        def cell(at: Emitter, states: Sequence[ir.Value], slices: Sequence[ir.Value]) -> Steps:
            c = at.op("Add", at.op("Mul", states[0], slices[0], like=states[0]), slices[1], like=states[0])
            return [c], [c]

        streams = [layer.kept(keep), layer.valid(mul(i, new))]
    else:

        def cell(at: Emitter, states: Sequence[ir.Value], slices: Sequence[ir.Value]) -> Steps:
            (before,), rest = states, list(slices)
            i = layer.activated(f, seen(rest[0], p_i, before, at), at)
            keep = forget(i, None if coupled else seen(rest[2], p_f, before, at), at)
            c = at.op(
                "Add", at.op("Mul", keep, before, like=before), at.op("Mul", i, rest[1], like=before), like=before
            )
            c = c if layer.mask is None else at.select(rest[-1], c, before, like=before)
            return [c], [c]

        streams = _present(a_i, new, a_f, layer.mask)
    _, c = scan(emit, cell, [c0], streams, run.backwards)
    c.shape = run.y.shape
    before = run.shifted(c, c0)
    if peepholes is not None:
        a_i, a_o = seen(a_i, p_i, before), seen(a_o, p_o, c)
        a_f = None if a_f is None else seen(a_f, p_f, before)
        i = layer.activated(f, a_i)
        keep = forget(i, a_f)
    # ONNX Runtime clips the gates only, not the cell in front of its activation; so does this.
    o, out = layer.activated(f, a_o), h.value(emit, c)
    # Factors of dc and dh in the cotangents of the gates, and of dh and dc in that of the cell.
    slope_i = layer.slope(f, a_i, i)
    if a_f is None:  # f = 1 - i
        to_i, to_f = mul(emit.op("Sub", new, before, like=new), slope_i), None
    else:
        to_i, to_f = mul(new, slope_i), layer.valid(mul(before, layer.slope(f, a_f, keep)))
    to_i, to_c = layer.valid(to_i), layer.valid(mul(i, layer.slope(g, a_c, new)))
    to_o = layer.valid(mul(out, layer.slope(f, a_o, o)))
    through = layer.valid(mul(o, h.slope(emit, out)))
    back = layer.kept(keep)
    if peepholes is not None:
        through = seen(through, p_o, to_o)
        back = seen(back, p_i, to_i)
        back = back if to_f is None else seen(back, p_f, to_f)
    factors = emit.op("Concat", to_i, to_o, *([] if to_f is None else [to_f]), to_c, axis=2)
    factors.shape = layer.wide_shape(3 if coupled else 4)
    dy, beyond = run.d_sequence(), layer.beyond()
    r = run.r if not coupled else emit.op("Concat", run.gates(run.r, 0, 2), run.gates(run.r, 3, 4), axis=0)

    def step(at: Emitter, states: Sequence[ir.Value], slices: Sequence[ir.Value]) -> Steps:
        (dh, dc), (factor, via, hold), rest = states, slices[:3], list(slices[3:])
        outside = rest.pop() if beyond is not None else None
        dh = _plus(at, dh, rest[0] if rest else None)
        dc = at.op("Add", at.op("Mul", dh, via, like=dh), dc, like=dc)
        da = at.op(
            "Mul", at.op("Concat", *([dc, dh, dc] if coupled else [dc, dh, dc, dc]), axis=1), factor, like=factor
        )
        dh = layer.add_recurrent(at, dh, outside, at.op("MatMul", da, r, like=dh))
        return [dh, at.op("Mul", dc, hold, like=dc)], [da]

    finals = [run.d_final(1), run.d_final(2)]
    streams = [factors, through, back, *_present(dy, beyond)]
    run.d_h0, run.d_c0, da = scan(emit, step, finals, streams, not run.backwards)
    if coupled:  # the forget gate has weights all the same, which are not used
        da_i, da_o, da_c = emit.multi("Split", [da, emit.ints(*[layer.hidden] * 3)], 3, {"axis": 2})
        for part in (da_i, da_o, da_c):
            part.type = da.type
        da = emit.op("Concat", da_i, da_o, emit.zeros_like(da_c), da_c, axis=2)
    run.d_pre = run.d_recurrent = da
    if len(call.wanted) > P and call.wanted[P]:
        parts = emit.multi("Split", [da, emit.ints(*[layer.hidden] * 4)], 4, {"axis": 2})
        sums = [
            emit.op("ReduceSum", emit.op("Mul", part, cell), emit.ints(0, 1), keepdims=0)
            for part, cell in zip(parts, (before, c, before))
        ]
        run.d_p = emit.op("Concat", *sums, axis=0)
