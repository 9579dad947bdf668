"""When a block of examples has taken long enough: what a killed run loses is one block."""

from __future__ import annotations

import time

__all__ = ["BLOCK_SECONDS", "Pace"]

BLOCK_SECONDS = 600.0
"""How long a block should take at all checkpoints: what a kill may cost, against one sync of the journal."""
SESSIONS = 100
"""A pass lasts at least so many times as long as making its session, so that making sessions anew for the next block
stays at one percent; many checkpoints with large models therefore get longer blocks."""


class Pace:
    """Watches the first pass over a block, from which its length follows.

    Args:
        seconds: how long a block should take, infinity for no limit.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._share = 1.0
        self._begun = self._ready = 0.0

    def begin(self, share: float) -> None:
        """A pass begins, which takes about this share of the time that its block takes."""
        self._share = share
        self._begun = self._ready = time.perf_counter()

    def ready(self) -> None:
        """The pass has its session."""
        self._ready = time.perf_counter()

    def is_over(self) -> bool:
        """Whether the block should end here."""
        worked = time.perf_counter() - self._ready
        return worked >= max(self._seconds * self._share, SESSIONS * (self._ready - self._begun))
