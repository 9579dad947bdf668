"""Single-operator graphs, a module for each family: every gradient rule has at least one case (test_rules.py insists).

A module in this folder with a list ``CASES`` is found by itself.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from tests.autodiff.cases.case import RNG, Case

_FAMILIES = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "case")


def _cases_of(family: str) -> list[Case]:
    RNG.bit_generator.state = _START  # the numbers of a family do not depend on what other families draw
    return import_module(f"{__name__}.{family}").CASES


_START = RNG.bit_generator.state
CASES: list[Case] = [case for family in _FAMILIES for case in _cases_of(family)]

__all__ = ["CASES", "Case"]
