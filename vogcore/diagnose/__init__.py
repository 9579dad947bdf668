"""Can a model be differentiated, is its gradient right, what is a file, does this machine work?

Above autodiff and runtime, below the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vogcore._lazy import lazy

if TYPE_CHECKING:
    from vogcore.diagnose.check import check_model as check_model
    from vogcore.diagnose.doctor import Finding as Finding
    from vogcore.diagnose.doctor import examine as examine
    from vogcore.diagnose.files import inspect_file as inspect_file
    from vogcore.diagnose.report import ModelReport as ModelReport
    from vogcore.diagnose.report import Operator as Operator
    from vogcore.diagnose.report import Problem as Problem
    from vogcore.diagnose.report import SelfCheck as SelfCheck
    from vogcore.diagnose.report import Tensor as Tensor

__all__ = [
    "Finding",
    "ModelReport",
    "Operator",
    "Problem",
    "SelfCheck",
    "Tensor",
    "check_model",
    "examine",
    "inspect_file",
]

_HOME = {
    "Finding": "vogcore.diagnose.doctor",
    "ModelReport": "vogcore.diagnose.report",
    "Operator": "vogcore.diagnose.report",
    "Problem": "vogcore.diagnose.report",
    "SelfCheck": "vogcore.diagnose.report",
    "Tensor": "vogcore.diagnose.report",
    "check_model": "vogcore.diagnose.check",
    "examine": "vogcore.diagnose.doctor",
    "inspect_file": "vogcore.diagnose.files",
}

__getattr__, __dir__ = lazy(__name__, _HOME)
