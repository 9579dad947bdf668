"""From what a pass collected to the score file."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from vogcore.errors import StoreError
from vogcore.scoring.assemble import Run, assemble
from vogcore.scoring.run import Clock
from vogcore.scoring.settings import Settings
from vogcore.store import Scores

__all__ = ["finish"]


def finish(
    run: Run,
    settings: Settings,
    record: dict[str, Any],
    stored: Scores | None,
    clock: Clock,
    out: str | os.PathLike[str] | None,
    overwrite: bool,
) -> Scores:
    scores = assemble(run, settings, record, stored)
    if out is not None:
        scores.timings = clock.total()  # what the file itself cost cannot be in the file
        with clock.time("storage"):
            _save(scores, out, overwrite)
    scores.timings = clock.total()
    return scores


def _save(scores: Scores, out: str | os.PathLike[str], overwrite: bool) -> None:
    """Write the score file; where that fails after all, hours of work go to the temporary folder instead of nowhere."""
    try:
        scores.save(out, overwrite=overwrite)
    except StoreError as error:
        folder = None
        try:
            folder = tempfile.mkdtemp(prefix="vogcore-scores-")
            scores.save(os.path.join(folder, "scores.h5"))
        except (OSError, StoreError):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            raise error from None
        error.args = (f"{str(error).rstrip('.')}; the scores are kept in {scores.path}, move them from there.",)
        raise
