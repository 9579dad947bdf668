"""From what a pass collected to the score file."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from vogcore.errors import StoreError
from vogcore.scoring.assemble import Run, assemble
from vogcore.scoring.maps import MapPass
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
    map_pass: MapPass | None = None,
    saved: Callable[[], None] = lambda: None,
) -> Scores:
    """Make the scores and write them; then the maps, so that a pass over them that fails loses nothing."""
    scores = assemble(run, settings, record, stored)
    _save(scores, out, overwrite, clock)
    saved()
    if map_pass is not None:
        map_pass.add(scores)
        _save(scores, out, True, clock)  # the file that was written a moment ago
    scores.timings = clock.total()
    return scores


def _save(scores: Scores, out: str | os.PathLike[str] | None, overwrite: bool, clock: Clock) -> None:
    """Write the score file; where that fails after all, hours of work go to the temporary folder instead of nowhere."""
    if out is None:
        return
    scores.timings = clock.total()  # what the file itself cost cannot be in the file
    try:
        with clock.time("storage"):
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
