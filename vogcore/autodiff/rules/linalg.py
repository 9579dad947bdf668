"""Matrix products."""

from __future__ import annotations

import onnx_ir as ir

from vogcore.autodiff.backward import unbroadcast
from vogcore.autodiff.registry import Call, Cotangents, rule


def transpose_last(call: Call, value: ir.Value) -> ir.Value:
    """``value`` with its last two axes exchanged."""
    n = call.rank_of(value)
    return call.emit.op("Transpose", value, perm=[*range(n - 2), n - 1, n - 2])


def _rows_of_one_hot(call: Call, weight: ir.Value, *, by_class: bool) -> ir.Value | None:
    """dY Wᵀ for a one-hot dY: the chosen rows of Wᵀ. None where dY is something else.

    At the end of a classifier this takes the place of a product over all classes.

    Args:
        call: the product.
        weight: a matrix, (C, D) or (D, C).
        by_class: whether it is (C, D).
    """
    target = call.emit.one_hots.get(call.dy)
    if target is None or call.rank_of(weight) != 2:
        return None
    rows = weight if by_class else call.emit.op("Transpose", weight, perm=[1, 0])
    return call.emit.op("Gather", rows, target, axis=0)


@rule("MatMul")
def matmul(call: Call) -> Cotangents:
    """Y = A B (numpy.matmul): dA = dY Bᵀ, dB = Aᵀ dY, summed over broadcast leading axes; vectors as matrices."""
    emit, a, b, dy = call.emit, call.input(0), call.input(1), call.dy
    rank_a, rank_b = call.rank_of(a), call.rank_of(b)
    if rank_a == 1 and rank_b == 1:
        return [
            emit.op("Mul", b, dy) if call.wanted[0] else None,
            emit.op("Mul", a, dy) if call.wanted[1] else None,
        ]
    # A vector operand is a matrix with one row or column that the product drops again.
    left = emit.op("Unsqueeze", a, emit.ints(0)) if rank_a == 1 else a
    right = emit.op("Unsqueeze", b, emit.ints(1)) if rank_b == 1 else b
    if rank_a == 1:
        dy = emit.op("Unsqueeze", dy, emit.ints(-2))
        left.shape = ir.Shape([1, a.shape[0]])  # type: ignore[index]
    if rank_b == 1:
        dy = emit.op("Unsqueeze", dy, emit.ints(-1))
        right.shape = ir.Shape([b.shape[0], 1])  # type: ignore[index]
    da = db = None
    chosen = _rows_of_one_hot(call, right, by_class=False) if call.wanted[0] and rank_a == 2 else None
    if chosen is not None:
        da = chosen
    elif call.wanted[0]:
        da = emit.op("MatMul", dy, transpose_last(call, right))
        da = _sum_leading(call, da, left, right, a, max(rank_b, 2))
    if call.wanted[1]:
        n = max(rank_b, 2)
        if n == 2 and max(rank_a, 2) > 2:
            # One matrix for all leading indices: a single product over the flattened rows, nothing to sum.
            flat_left = emit.op("Reshape", left, emit.op("Concat", emit.ints(-1), emit.dim(left, -1), axis=0))
            flat_dy = emit.op("Reshape", dy, emit.op("Concat", emit.ints(-1), emit.dim(right, -1), axis=0))
            db = emit.op("MatMul", emit.op("Transpose", flat_left, perm=[1, 0]), flat_dy)
            db = emit.reshape_like(db, b)
        else:
            db = emit.op("MatMul", transpose_last(call, left), dy)
            db = _sum_leading(call, db, right, left, b, max(rank_a, 2))
    return [da, db]


def _sum_leading(
    call: Call, cotangent: ir.Value, operand: ir.Value, other: ir.Value, target: ir.Value, other_rank: int
) -> ir.Value:
    """Sum a matrix cotangent over the leading axes that ``operand`` was broadcast along."""
    emit = call.emit
    own = call.rank_of(operand)
    if own == 2 and other_rank == 2:
        return emit.reshape_like(cotangent, target) if operand is not target else cotangent
    lead_own, lead_other = operand.shape[:-2], other.shape[:-2]  # type: ignore[index]
    wide = max(len(lead_own), len(lead_other))
    theirs = [1] * (wide - len(lead_other)) + list(lead_other)
    mine = [1] * (wide - len(lead_own)) + list(lead_own)
    # The cotangent's leading axes are the broadcast of both; None, "not known", makes the engine decide at run time.
    lead = [
        full if size == 1 else size if isinstance(size, int) or full == 1 or size == full else None
        for size, full in zip(mine, theirs, strict=True)
    ]
    cotangent.shape = ir.Shape([*lead, *operand.shape[-2:]])  # type: ignore[index]
    result = unbroadcast(emit, cotangent, cotangent, operand)
    return emit.reshape_like(result, target) if operand is not target else result


@rule("Gemm")
def gemm(call: Call) -> Cotangents:
    """Y = alpha A' B' + beta C: dA' = alpha dY B'ᵀ, dB' = alpha A'ᵀ dY, dC = beta dY summed to the shape of C."""
    emit, a, b, dy = call.emit, call.input(0), call.input(1), call.dy
    alpha, beta = float(call.attribute("alpha", 1.0)), float(call.attribute("beta", 1.0))
    trans_a, trans_b = call.attribute("transA", 0), call.attribute("transB", 0)
    results: list[ir.Value | None] = [None] * len(call.node.inputs)
    chosen = _rows_of_one_hot(call, b, by_class=bool(trans_b)) if call.wanted[0] and not trans_a else None
    if chosen is not None:
        results[0] = emit.op("Mul", chosen, emit.scalar(alpha, chosen)) if alpha != 1.0 else chosen
    elif call.wanted[0]:
        # A' = A: dA = dY B'ᵀ.  A' = Aᵀ: dA = B' dYᵀ.
        if trans_a:
            results[0] = emit.op("Gemm", b, dy, alpha=alpha, transA=int(trans_b), transB=1)
        else:
            results[0] = emit.op("Gemm", dy, b, alpha=alpha, transB=int(not trans_b))
    if call.wanted[1]:
        if trans_b:
            results[1] = emit.op("Gemm", dy, a, alpha=alpha, transA=1, transB=int(trans_a))
        else:
            results[1] = emit.op("Gemm", a, dy, alpha=alpha, transA=int(not trans_a))
    if len(call.wanted) > 2 and call.wanted[2]:
        scaled = emit.op("Mul", dy, emit.scalar(beta, dy), like=dy) if beta != 1.0 else dy
        results[2] = unbroadcast(emit, scaled, call.y, call.input(2))
    return results
