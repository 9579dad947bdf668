"""What the scores of a file say about themselves on this run: which end is hard, and how well each one separates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vogcore.report.measures import Ranked
from vogcore.scoring.direction import auroc_interval, decide
from vogcore.store import Direction, Scores
from vogcore.store.schema import EASIER, HARDER, NOT_MEASURED, SCORE_NAMES

__all__ = ["FROM_LAST", "FROM_LOGITS", "YARDSTICKS", "Finding", "Findings", "find"]

YARDSTICKS = ("loss", "correct")
"""The two measures that every direction is measured against; against themselves they say nothing."""
FROM_LAST = ("entropy",)
"""Made from the very logits of the last checkpoint that decide the errors and the loss."""
FROM_LOGITS = ("confidence", "variability", "correctness", "el2n", "aum", "forgetting", "first_learned")
"""Made from the logits of all checkpoints, the last one among them."""

_FEWEST_OF_EACH = 10


@dataclass(eq=False)
class Finding:
    """One score or companion, and what was measured of it.

    Attributes:
        stage: name of the stage, or "" for a companion.
        name: of the score or the companion.
        ranked: its values.
        claimed: which end is hard, in the words of its source.
        direction: as measured; its ``claimed`` is the default one where the words are others.
        low, high: 95% confidence interval of the AUROC, or NaN.
    """

    stage: str
    name: str
    ranked: Ranked
    claimed: str
    direction: Direction
    low: float
    high: float

    @property
    def title(self) -> str:
        """The score as a reader of the report meets it, e.g. ``"vog (late)"``."""
        return f"{self.name} ({self.stage})" if self.stage else self.name

    @property
    def separation(self) -> float:
        """AUROC for errors read from the better end, 0.5 to 1; NaN where it was not measured."""
        area = self.direction.auroc_errors
        return max(area, 1 - area) if not math.isnan(area) else math.nan

    @property
    def yardstick(self) -> bool:
        """True for the loss and the errors themselves."""
        return not self.stage and self.name in YARDSTICKS

    @property
    def contradicts(self) -> bool:
        """True where the measured hard end is the opposite of the claimed one."""
        return self.direction.decided and self.claimed in (HARDER, EASIER) and self.direction.measured != self.claimed


@dataclass(eq=False)
class Findings:
    """All scores and companions of a file, in its order.

    Attributes:
        all: the findings.
        correct: (N,) whether the last checkpoint predicts the label, or None where that is not known.
        labelled: (N,) which examples have a label.
    """

    all: list[Finding]
    correct: npt.NDArray[np.bool_] | None
    labelled: npt.NDArray[np.bool_]

    def of(self, stage: str, name: str) -> Finding | None:
        """The finding of one score of a stage, or of a companion with the stage ""."""
        return next((f for f in self.all if (f.stage, f.name) == (stage, name)), None)

    @property
    def scores(self) -> list[Finding]:
        """Those of VoG."""
        return [f for f in self.all if f.stage]

    @property
    def companions(self) -> list[Finding]:
        """Those of other measures."""
        return [f for f in self.all if not f.stage]

    def best(self, among: Sequence[Finding]) -> Finding | None:
        """The one that separates errors from the rest best, the yardsticks apart.

        None where there are fewer than ten errors, or fewer than ten examples that are none.
        """
        fit = [
            f
            for f in among
            if not f.yardstick
            and not math.isnan(f.separation)
            and min(f.direction.n_errors, f.direction.n_examples - f.direction.n_errors) >= _FEWEST_OF_EACH
        ]
        return max(fit, key=lambda f: f.separation, default=None)


def find(scores: Scores) -> Findings:
    """Measure every score and every companion of a file against the loss and the errors of the last checkpoint.

    What a run has measured and recorded itself is taken from the file; the rest is measured by the same formulas.
    """
    labelled = scores.labels >= 0
    correct = _correct(scores, labelled)
    loss = Ranked(scores.companions["loss"].values) if "loss" in scores.companions else None
    found = []
    for stage in scores.stages.values():
        for name in SCORE_NAMES:
            values = getattr(stage, name)
            if values is not None:
                recorded = stage.direction(name)
                found.append(_finding(stage.name, name, values, recorded.claimed, recorded, loss, correct))
    for name, companion in scores.companions.items():
        found.append(_finding("", name, companion.values, companion.direction, None, loss, correct))
    return Findings(found, correct, labelled)


def _correct(scores: Scores, labelled: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    if not labelled.any():
        return None
    if "correct" in scores.companions:
        return scores.companions["correct"].values.astype(bool) & labelled
    predicted = scores.predictions_class
    return None if predicted is None or not len(predicted) else (predicted[-1] == scores.labels) & labelled


def _finding(
    stage: str,
    name: str,
    values: npt.NDArray,
    claimed: str,
    recorded: Direction | None,
    loss: Ranked | None,
    correct: npt.NDArray[np.bool_] | None,
) -> Finding:
    ranked = Ranked(values)
    direction = recorded
    if (direction is None or direction.measured == NOT_MEASURED) and loss is not None and correct is not None:
        direction = _measure(ranked, loss, correct)
    if direction is None:
        direction = Direction(claimed=claimed if claimed in (HARDER, EASIER) else HARDER)
    n_right = direction.n_examples - direction.n_errors
    low, high = auroc_interval(direction.auroc_errors, direction.n_errors, n_right)
    return Finding(stage, name, ranked, claimed, direction, low, high)


def _measure(ranked: Ranked, loss: Ranked, correct: npt.NDArray[np.bool_]) -> Direction:
    usable = ranked.finite & loss.finite
    n, errors = int(usable.sum()), ~correct[usable]
    if n == 0:
        return Direction()
    if not np.array_equal(usable, ranked.finite):
        ranked = Ranked(np.where(usable, ranked.values, math.nan))
    return decide(ranked.spearman(loss), ranked.auroc(errors), n, int(errors.sum()))
