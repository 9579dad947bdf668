"""Rules that users register for operators of their own, and over rules of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from vogcore.autodiff import rules as _rules  # noqa: F401 - fills the table, so that no rule of ours comes later
from vogcore.autodiff.registry import NO_GRADIENT, RULES, Rule, RuleFunction
from vogcore.errors import SettingsError

__all__ = ["own_operators", "preserved", "register_vjp", "unregister_vjp"]


class _Registration(NamedTuple):
    domain: str
    op: str
    like: int | None
    before: Rule | None
    """The rule of vogcore's own that it replaces."""


_REGISTERED: dict[str, _Registration] = {}


def register_vjp(
    domain: str,
    op: str,
    *,
    like: int | None = None,
    broadcasts: bool = False,
    all_outputs: bool = False,
    replace: bool = False,
) -> Callable[[RuleFunction], RuleFunction]:
    """Register a function as the gradient rule of an operator (a decorator).

    The rule is called for every node of that operator on the path from the input to the output. It gets a
    :class:`vogcore.autodiff.Call` and returns one cotangent for each input of the node, None where none is wanted.
    docs/custom-operators.md has a worked example.

    A model-local function with a rule is not written out into its nodes: the rule differentiates it as a whole.

    Args:
        domain: domain of the operator, ``""`` for ONNX's own.
        op: its type.
        like: position of the input whose type and shape the first output has, where there is one. ONNX cannot infer
            them, and what comes behind the operator may need them.
        broadcasts: the inputs broadcast as in NumPy, and the rule returns cotangents of the output's shape, which are
            then summed to the shape of each input.
        all_outputs: the rule reads the cotangents of all outputs; otherwise a use of an output other than the first
            between input and logits is refused.
        replace: take the place of a rule that there is.

    Raises:
        SettingsError: the operator has a rule, or is known to have no gradient, and ``replace`` is not set.
    """
    name = _qualified(domain, op)
    if not replace:
        if name in _REGISTERED:
            raise SettingsError(
                f"{name} has a gradient rule that was registered before; give replace=True to replace it."
            )
        if name in RULES or name in NO_GRADIENT:
            what = "has a gradient rule in vogcore" if name in RULES else "is known to have no gradient"
            raise SettingsError(f"{name} {what}; give replace=True to put another in its place.")

    def register(function: RuleFunction) -> RuleFunction:
        before = _REGISTERED[name].before if name in _REGISTERED else RULES.get(name)
        _REGISTERED[name] = _Registration("" if domain == "ai.onnx" else domain, op, like, before)
        RULES[name] = Rule(function, broadcasts, all_outputs)
        return function

    return register


def unregister_vjp(domain: str, op: str) -> None:
    """Take back a rule given to :func:`register_vjp`; a rule of vogcore's own that it replaced is in force again.

    Raises:
        SettingsError: no such rule was registered.
    """
    name = _qualified(domain, op)
    if name not in _REGISTERED:
        raise SettingsError(f"No gradient rule was registered for {name}.")
    before = _REGISTERED.pop(name).before
    if before is None:
        del RULES[name]
    else:
        RULES[name] = before


@contextlib.contextmanager
def preserved(domain: str, op: str) -> Iterator[None]:
    """Undo, at its end, whatever was registered for an operator in the meantime."""
    name = _qualified(domain, op)
    rule, registration = RULES.get(name), _REGISTERED.get(name)
    try:
        yield
    finally:
        RULES.pop(name, None)
        _REGISTERED.pop(name, None)
        if rule is not None:
            RULES[name] = rule
        if registration is not None:
            _REGISTERED[name] = registration


def own_operators() -> dict[tuple[str, str], int | None]:
    """What :func:`vogcore.graph.prepare.prepare` has to know of the operators that users registered."""
    return {(entry.domain, entry.op): entry.like for entry in _REGISTERED.values()}


def _qualified(domain: str, op: str) -> str:
    return op if domain in ("", "ai.onnx") else f"{domain}.{op}"
