"""Which end of a score is the hard one: as its source claims, and as a run measured it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vogcore.errors import SettingsError
from vogcore.store.schema import EASIER, HARDER, MEASURED, NOT_MEASURED

__all__ = ["Direction"]


@dataclass(frozen=True)
class Direction:
    """Which end of a score is the hard one: as its source claims, and as measured in the same run.

    Attributes:
        claimed: ``"higher is harder"`` or ``"lower is harder"``, as the source of the score says.
        measured: the same two, ``"undetermined"`` (measured, but not decided) or ``"not measured"``.
        spearman_loss: rank correlation of the score with the loss at the last checkpoint; NaN where not measured.
        spearman_low: lower end of its confidence interval.
        spearman_high: upper end of its confidence interval.
        auroc_errors: AUROC of the score for the errors of the last checkpoint; NaN where not measured.
        n_errors: number of errors among the examples measured on.
        n_examples: number of examples measured on.

    Raises:
        SettingsError: a direction is none of the values above.
    """

    claimed: str = HARDER
    measured: str = NOT_MEASURED
    spearman_loss: float = math.nan
    spearman_low: float = math.nan
    spearman_high: float = math.nan
    auroc_errors: float = math.nan
    n_errors: int = 0
    n_examples: int = 0

    def __post_init__(self) -> None:
        if self.claimed not in (HARDER, EASIER):
            raise SettingsError(f"A claimed direction is {HARDER!r} or {EASIER!r}, not {self.claimed!r}.")
        if self.measured not in MEASURED:
            raise SettingsError(
                f"A measured direction is one of {', '.join(map(repr, MEASURED))}, not {self.measured!r}."
            )

    @property
    def decided(self) -> bool:
        """True where the run itself told which end is the hard one."""
        return self.measured in (HARDER, EASIER)

    @property
    def contradicts(self) -> bool:
        """True where the measured direction is the opposite of the claimed one."""
        return self.decided and self.measured != self.claimed

    @property
    def hard_is_high(self) -> bool:
        """True where high scores are the hard ones: as measured where that is decided, else as claimed."""
        return (self.measured if self.decided else self.claimed) == HARDER
