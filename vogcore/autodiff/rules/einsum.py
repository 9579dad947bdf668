"""Einstein summation."""

from __future__ import annotations

import string
from collections import Counter

import onnx_ir as ir

from vogcore.autodiff.backward import unbroadcast
from vogcore.autodiff.registry import Call, Cotangents, rule
from vogcore.autodiff.rules.index import eye
from vogcore.graph.shapes import dims


@rule("Einsum")
def einsum(call: Call) -> Cotangents:
    """y = a sum over products of the operands: each operand's gradient is the Einsum of dy with the other operands.

    An index that only this operand has was summed, so the gradient is spread along it; one that it has twice took the
    diagonal, so the gradient lies there. Ellipses become indices of their own.
    """
    inputs = [call.input(i) for i in range(len(call.node.inputs))]
    terms, output = _explicit(call, inputs)
    sizes = _sizes(terms, inputs)
    return [
        _operand(call, index, inputs, terms, output, sizes) if want else None for index, want in enumerate(call.wanted)
    ]


Sizes = dict[str, int | str | None]


def _explicit(call: Call, inputs: list[ir.Value]) -> tuple[list[str], str]:
    """The indices of every operand and of the output, one letter for each axis."""
    equation = call.attribute("equation").replace(" ", "")
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    spans = [
        call.rank_of(value) - len(term.replace("...", "")) if "..." in term else 0
        for term, value in zip(terms, inputs, strict=True)
    ]
    widest = max(spans, default=0)
    if len(free) < widest:
        raise call.unsupported("it has more indices than letters")
    letters = "".join(free[:widest])
    if not arrow:  # implicit form: the ellipsis, then every index that occurs once, in alphabetical order
        count = Counter(left)
        singles = sorted(letter for letter in count if letter.isalpha() and count[letter] == 1)
        output = "..." + "".join(singles)
    # Ellipses are aligned at their last axis, as in broadcasting.
    terms = [term.replace("...", letters[widest - span :]) for term, span in zip(terms, spans)]
    return terms, output.replace("...", letters)


def _sizes(terms: list[str], inputs: list[ir.Value]) -> Sizes:
    """Size of every index, where it is known; operands may have size one where others have more."""
    found: dict[str, list[int | str | None]] = {}
    for term, value in zip(terms, inputs, strict=True):
        for letter, size in zip(term, dims(value) or [None] * len(term), strict=True):
            found.setdefault(letter, []).append(size)
    sizes: Sizes = {}
    for letter, seen in found.items():
        numbers = [size for size in seen if isinstance(size, int) and size != 1]
        others = {size for size in seen if size != 1}
        sizes[letter] = numbers[0] if numbers else others.pop() if len(others) == 1 else None if others else 1
    return sizes


def _operand(call: Call, index: int, inputs: list[ir.Value], terms: list[str], output: str, sizes: Sizes) -> ir.Value:
    emit, target, term = call.emit, inputs[index], terms[index]
    others = [i for i in range(len(inputs)) if i != index]
    present = set(output).union(*(terms[i] for i in others))
    letters = list(dict.fromkeys(term))  # each index once
    found = "".join(letter for letter in letters if letter in present)
    equation = f"{','.join([output, *(terms[i] for i in others)])}->{found}"
    result = call.dy
    if others or found != output:
        result = emit.op("Einsum", call.dy, *(inputs[i] for i in others), equation=equation)
    # One axis for each index; those that were summed away have size one so far.
    absent = [axis for axis, letter in enumerate(letters) if letter not in present]
    if absent:
        result = emit.op("Unsqueeze", result, emit.ints(*absent))
    if len(letters) < len(term):
        result = _on_diagonal(call, result, target, term, letters)
    if absent:
        result = emit.expand_like(result, target)
    # Operands of size one were broadcast along an index of which another operand has more.
    shared = {letter for letter in term if any(letter in terms[i] for i in others)}
    known = dims(target) or [None] * len(term)
    if any(letter in shared and (size is None or size != sizes[letter]) for letter, size in zip(term, known)):
        result.shape = ir.Shape([sizes[letter] if letter in shared else size for letter, size in zip(term, known)])
        result = unbroadcast(emit, result, result, target)
    return result


def _on_diagonal(call: Call, value: ir.Value, target: ir.Value, term: str, letters: list[str]) -> ir.Value:
    """Axes for the repeated indices of ``term``: ``value`` on the diagonal, zeros elsewhere."""
    emit, dtype = call.emit, target.dtype or ir.DataType.FLOAT
    first = [axis for axis, letter in enumerate(term) if term.index(letter) == axis]
    assert [term[axis] for axis in first] == letters
    repeated = [axis for axis in range(len(term)) if axis not in first]
    value = emit.op("Unsqueeze", value, emit.ints(*repeated))
    for axis in repeated:
        diagonal = eye(emit, target, axis, dtype)
        place = (term.index(term[axis]), axis)
        away = [a for a in range(len(term)) if a not in place]
        value = emit.op("Mul", value, emit.op("Unsqueeze", diagonal, emit.ints(*away)) if away else diagonal)
    return value
