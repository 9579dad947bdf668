"""From checkpoints and examples to scores: settings, stages, the block loop, class normalisation, direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vogcore._lazy import lazy

if TYPE_CHECKING:
    from vogcore.scoring.api import score as score
    from vogcore.scoring.given import score_gradients as score_gradients
    from vogcore.scoring.settings import Settings as Settings

__all__ = ["Settings", "score", "score_gradients"]

_HOME = {
    "Settings": "vogcore.scoring.settings",
    "score": "vogcore.scoring.api",
    "score_gradients": "vogcore.scoring.given",
}

__getattr__, __dir__ = lazy(__name__, _HOME)
