"""Can a model be differentiated, and is its gradient right? Above autodiff and runtime, below the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vogcore._lazy import lazy

if TYPE_CHECKING:
    from vogcore.diagnose.check import check_model as check_model
    from vogcore.diagnose.report import ModelReport as ModelReport
    from vogcore.diagnose.report import Operator as Operator
    from vogcore.diagnose.report import Problem as Problem
    from vogcore.diagnose.report import SelfCheck as SelfCheck
    from vogcore.diagnose.report import Tensor as Tensor

__all__ = ["ModelReport", "Operator", "Problem", "SelfCheck", "Tensor", "check_model"]

_HOME = {
    "ModelReport": "vogcore.diagnose.report",
    "Operator": "vogcore.diagnose.report",
    "Problem": "vogcore.diagnose.report",
    "SelfCheck": "vogcore.diagnose.report",
    "Tensor": "vogcore.diagnose.report",
    "check_model": "vogcore.diagnose.check",
}

__getattr__, __dir__ = lazy(__name__, _HOME)
