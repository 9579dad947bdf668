"""Single-operator graphs, a module for each family: every gradient rule has at least one case (test_rules.py insists).

A module in this folder with a list ``CASES`` is found by itself.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from tests.autodiff.cases.case import Case

_FAMILIES = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "case")

CASES: list[Case] = [case for family in _FAMILIES for case in import_module(f"{__name__}.{family}").CASES]

__all__ = ["CASES", "Case"]
