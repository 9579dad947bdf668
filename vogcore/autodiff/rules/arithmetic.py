"""Elementwise mathematics of one, two or many inputs. Formulas from the ONNX operator specification."""

from __future__ import annotations

import math

import onnx_ir as ir

from vogcore.autodiff.registry import Call, Cotangents, rule


@rule("Add", "Sum", broadcasts=True)
def add(call: Call) -> Cotangents:
    """y = a + b + ...: every input gets dy."""
    return [call.dy if want else None for want in call.wanted]


@rule("Sub", broadcasts=True)
def sub(call: Call) -> Cotangents:
    """y = a - b: da = dy, db = -dy."""
    emit = call.emit
    return [
        call.dy if call.wanted[0] else None,
        emit.op("Neg", call.dy) if call.wanted[1] else None,
    ]


@rule("Mul", broadcasts=True)
def mul(call: Call) -> Cotangents:
    """y = a b: da = dy b, db = dy a."""
    emit = call.emit
    return [
        emit.op("Mul", call.dy, call.input(1)) if call.wanted[0] else None,
        emit.op("Mul", call.dy, call.input(0)) if call.wanted[1] else None,
    ]


@rule("Div", broadcasts=True)
def div(call: Call) -> Cotangents:
    """y = a / b: da = dy / b, db = -dy y / b."""
    emit, divisor = call.emit, call.input(1)
    quotient = emit.op("Div", call.dy, divisor)
    return [
        quotient if call.wanted[0] else None,
        emit.op("Neg", emit.op("Mul", quotient, call.y)) if call.wanted[1] else None,
    ]


@rule("Pow", broadcasts=True)
def power(call: Call) -> Cotangents:
    """y = a^b: da = dy b a^(b-1), db = dy y log a (zero where a <= 0, as torch has it for a = 0)."""
    emit, base, exponent = call.emit, call.input(0), call.input(1)
    exponent_type = exponent.dtype or ir.DataType.FLOAT  # may differ from that of the base
    da = db = None
    known = call.known(1)
    if call.wanted[0]:
        if known is not None and known.size == 1:
            number = float(known.reshape(()))
            if number == 0.0:  # 0 * 0^-1 is not finite, where the derivative is 0
                slope = emit.zeros_like(base)
            elif number == 2.0:  # the commonest case, without a Pow
                slope = emit.op("Add", base, base)
            else:
                raised = emit.op("Pow", base, emit.scalar(number - 1.0, base))
                slope = emit.op("Mul", raised, emit.scalar(number, base))
            da = emit.op("Mul", call.dy, slope)
        else:
            exponent = emit.cast(exponent, base.dtype or ir.DataType.FLOAT)
            one = emit.scalar(1.0, base)
            slope = emit.op("Mul", emit.op("Pow", base, emit.op("Sub", exponent, one)), exponent)
            zero = emit.scalar(0.0, base)
            # 0^(b-1) b is inf * 0 at b = 0, where the derivative is 0.
            is_zero = emit.compare("Equal", exponent, zero)
            da = emit.op("Mul", call.dy, emit.select(is_zero, zero, slope, like=call.dy))
    if call.wanted[1]:
        positive = emit.compare("Greater", base, emit.scalar(0.0, base))
        logarithm = emit.masked(positive, emit.op("Log", base))
        db = emit.op("Mul", call.dy, emit.op("Mul", call.y, logarithm))
        db = emit.cast(db, exponent_type)
    return [da, db]


@rule("Max", "Min", broadcasts=True)
def maximum(call: Call) -> Cotangents:
    """y = max(a, b, ...): dy goes to the inputs that attain it, in equal parts where several do (torch.maximum)."""
    emit, y = call.emit, call.y
    if len(call.node.inputs) == 1:
        return [call.dy]
    dtype = y.dtype or ir.DataType.FLOAT
    hits = [emit.cast(emit.compare("Equal", call.input(i), y), dtype) for i in range(len(call.node.inputs))]
    count = hits[0]
    for hit in hits[1:]:
        count = emit.op("Add", count, hit)
    share = emit.op("Div", call.dy, count)
    return [emit.op("Mul", share, hit) if want else None for hit, want in zip(hits, call.wanted)]


@rule("Mean", broadcasts=True)
def mean(call: Call) -> Cotangents:
    """y = (a + b + ...) / n: every input gets dy / n."""
    part = call.emit.op("Div", call.dy, call.emit.scalar(float(len(call.node.inputs)), call.dy))
    return [part if want else None for want in call.wanted]


@rule("Where", broadcasts=True)
def where(call: Call) -> Cotangents:
    """y = a where c, else b: da = dy where c, db = dy where not c."""
    emit, condition, zero = call.emit, call.input(0), call.emit.scalar(0.0, call.dy)
    yes = emit.select(condition, call.dy, zero, like=call.dy) if call.wanted[1] else None
    no = emit.select(condition, zero, call.dy, like=call.dy) if call.wanted[2] else None
    return [None, yes, no]


@rule("Neg")
def neg(call: Call) -> Cotangents:
    """dx = -dy."""
    return [call.emit.op("Neg", call.dy)]


@rule("Abs")
def absolute(call: Call) -> Cotangents:
    """dx = dy sign(x), zero at zero."""
    return [call.emit.op("Mul", call.dy, call.emit.op("Sign", call.x))]


@rule("Exp")
def exp(call: Call) -> Cotangents:
    """dx = dy y."""
    return [call.emit.op("Mul", call.dy, call.y)]


@rule("Log")
def log(call: Call) -> Cotangents:
    """dx = dy / x."""
    return [call.emit.op("Div", call.dy, call.x)]


@rule("Sqrt")
def sqrt(call: Call) -> Cotangents:
    """dx = dy / (2 y)."""
    return [call.emit.op("Div", call.dy, call.emit.op("Add", call.y, call.y))]


@rule("Reciprocal")
def reciprocal(call: Call) -> Cotangents:
    """dx = -dy y²."""
    emit = call.emit
    return [emit.op("Neg", emit.op("Mul", call.dy, emit.op("Mul", call.y, call.y)))]


@rule("Erf")
def erf(call: Call) -> Cotangents:
    """dx = dy 2/sqrt(pi) exp(-x²)."""
    emit, x = call.emit, call.x
    bell = emit.op("Exp", emit.op("Neg", emit.op("Mul", x, x)))
    return [emit.op("Mul", call.dy, emit.op("Mul", bell, emit.scalar(2 / math.sqrt(math.pi), x)))]


@rule("Sin")
def sin(call: Call) -> Cotangents:
    """dx = dy cos x."""
    return [call.emit.op("Mul", call.dy, call.emit.op("Cos", call.x))]


@rule("Cos")
def cos(call: Call) -> Cotangents:
    """dx = -dy sin x."""
    return [call.emit.op("Neg", call.emit.op("Mul", call.dy, call.emit.op("Sin", call.x)))]


@rule("Tan")
def tan(call: Call) -> Cotangents:
    """dx = dy (1 + y²)."""
    emit, y = call.emit, call.y
    return [emit.op("Mul", call.dy, emit.op("Add", emit.op("Mul", y, y), emit.scalar(1.0, y)))]


@rule("Sinh")
def sinh(call: Call) -> Cotangents:
    """dx = dy cosh x."""
    return [call.emit.op("Mul", call.dy, call.emit.op("Cosh", call.x))]


@rule("Cosh")
def cosh(call: Call) -> Cotangents:
    """dx = dy sinh x."""
    return [call.emit.op("Mul", call.dy, call.emit.op("Sinh", call.x))]


def _over(call: Call, sign: str, constant: float, *, root: bool = False) -> ir.Value:
    """dy / (constant ± x²), or over the square root of that: the inverse functions share this shape."""
    emit, x = call.emit, call.x
    square = emit.op("Mul", x, x)
    bottom = emit.op("Add" if sign == "+" else "Sub", emit.scalar(constant, x), square)
    return emit.op("Div", call.dy, emit.op("Sqrt", bottom) if root else bottom)


@rule("Asin")
def asin(call: Call) -> Cotangents:
    """dx = dy / sqrt(1 - x²)."""
    return [_over(call, "-", 1.0, root=True)]


@rule("Acos")
def acos(call: Call) -> Cotangents:
    """dx = -dy / sqrt(1 - x²)."""
    return [call.emit.op("Neg", _over(call, "-", 1.0, root=True))]


@rule("Atan")
def atan(call: Call) -> Cotangents:
    """dx = dy / (1 + x²)."""
    return [_over(call, "+", 1.0)]


@rule("Asinh")
def asinh(call: Call) -> Cotangents:
    """dx = dy / sqrt(1 + x²)."""
    return [_over(call, "+", 1.0, root=True)]


@rule("Acosh")
def acosh(call: Call) -> Cotangents:
    """dx = dy / sqrt(x² - 1)."""
    return [_over(call, "+", -1.0, root=True)]


@rule("Atanh")
def atanh(call: Call) -> Cotangents:
    """dx = dy / (1 - x²)."""
    return [_over(call, "-", 1.0)]


@rule("Identity")
def identity(call: Call) -> Cotangents:
    """dx = dy."""
    return [call.dy]


@rule("Dropout")
def dropout(call: Call) -> Cotangents:
    """In evaluation mode (training mode is refused when the model is prepared) the identity."""
    return [call.dy]


@rule("Cast", "CastLike")
def cast(call: Call) -> Cotangents:
    """Between floating-point types: dx = dy in the type of x."""
    dtype = call.x.dtype
    if dtype is None:
        raise call.unsupported("the type of its input is not known; run ONNX shape inference on the model")
    return [call.emit.cast(call.dy, dtype)]


@rule("Mod", broadcasts=True)
def mod(call: Call) -> Cotangents:
    """y = a - q b with the whole number q = trunc(a / b), or floor(a / b) without fmod: da = dy, db = -dy q."""
    emit, a, b = call.emit, call.input(0), call.input(1)
    results: list[ir.Value | None] = [call.dy, None]
    if call.wanted[1]:
        # From y, so that q is the one of the forward pass also where a / b is rounded to a whole number.
        q = emit.op("Round", emit.op("Div", emit.op("Sub", a, call.y), b))
        results[1] = emit.op("Neg", emit.op("Mul", call.dy, q))
    return results
