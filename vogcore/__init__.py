"""vogcore: variance of input gradients (VoG) from ONNX checkpoints.

The names below are resolved on first use, so that ``import vogcore`` costs nothing and a program that only reads
score files never loads a compiler or an inference engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vogcore._lazy import lazy

if TYPE_CHECKING:
    from vogcore.autodiff.custom import register_vjp as register_vjp
    from vogcore.autodiff.custom import unregister_vjp as unregister_vjp
    from vogcore.autodiff.transform import gradient_model as gradient_model
    from vogcore.autodiff.transform import vjp_model as vjp_model
    from vogcore.diagnose.check import check_model as check_model
    from vogcore.diagnose.files import inspect_file as inspect_file
    from vogcore.errors import VogcoreError as VogcoreError
    from vogcore.errors import VogcoreWarning as VogcoreWarning
    from vogcore.scoring.api import score as score
    from vogcore.scoring.compare import compare as compare
    from vogcore.scoring.given import score_gradients as score_gradients
    from vogcore.scoring.live import LiveScorer as LiveScorer
    from vogcore.scoring.merge import merge as merge
    from vogcore.store.archive import GradientWriter as GradientWriter
    from vogcore.store.scores import Scores as Scores
    from vogcore.store.scores import open_scores as open_scores

__version__ = "0.1.0"

_HOME = {
    "GradientWriter": "vogcore.store.archive",
    "LiveScorer": "vogcore.scoring.live",
    "Scores": "vogcore.store.scores",
    "VogcoreError": "vogcore.errors",
    "VogcoreWarning": "vogcore.errors",
    "check_model": "vogcore.diagnose.check",
    "compare": "vogcore.scoring.compare",
    "gradient_model": "vogcore.autodiff.transform",
    "inspect_file": "vogcore.diagnose.files",
    "merge": "vogcore.scoring.merge",
    "open_scores": "vogcore.store.scores",
    "register_vjp": "vogcore.autodiff.custom",
    "score": "vogcore.scoring.api",
    "score_gradients": "vogcore.scoring.given",
    "unregister_vjp": "vogcore.autodiff.custom",
    "vjp_model": "vogcore.autodiff.transform",
}

__all__ = [*sorted(_HOME), "__version__"]

__getattr__, __dir__ = lazy(__name__, _HOME)
