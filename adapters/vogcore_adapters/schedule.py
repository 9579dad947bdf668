"""When to write a checkpoint: every so many steps, every epoch, evenly on a logarithmic scale, early and late.

A schedule says of any moment of a training run whether a checkpoint is due, and knows nothing of a framework.
``a | b`` is due where either is, ``a & b`` where both are::

    every_n_steps(500) & between_steps(0, 5_000) | every_epoch()

Steps are optimiser steps taken, epochs are passes over the data completed, so both are 0 before training. A schedule
that counts epochs is due at the end of an epoch only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from vogcore.errors import SettingsError

__all__ = [
    "Moment",
    "Schedule",
    "Unit",
    "at",
    "between_epochs",
    "between_steps",
    "early_and_late",
    "every_epoch",
    "every_n_steps",
    "log_spaced",
]

Unit: TypeAlias = Literal["steps", "epochs"]


@dataclass(frozen=True)
class Moment:
    """A point of a training run, after an optimiser step or at the end of an epoch.

    Attributes:
        step: optimiser steps taken.
        epoch: epochs completed; None where the training loop does not say.
        epoch_end: the epoch that ``epoch`` counts last has just ended.
    """

    step: int
    epoch: int | None = None
    epoch_end: bool = False


class Schedule(ABC):
    """Says when a checkpoint is due; write one of your own by giving it ``due``."""

    @abstractmethod
    def due(self, moment: Moment) -> bool:
        """Whether a checkpoint is due at this moment."""

    def __or__(self, other: Schedule) -> Schedule:
        return _Either(self, other) if isinstance(other, Schedule) else NotImplemented

    def __and__(self, other: Schedule) -> Schedule:
        return _Both(self, other) if isinstance(other, Schedule) else NotImplemented


@dataclass(frozen=True)
class _Either(Schedule):
    first: Schedule
    second: Schedule

    def due(self, moment: Moment) -> bool:
        return self.first.due(moment) or self.second.due(moment)


@dataclass(frozen=True)
class _Both(Schedule):
    first: Schedule
    second: Schedule

    def due(self, moment: Moment) -> bool:
        return self.first.due(moment) and self.second.due(moment)


def _count(moment: Moment, unit: Unit) -> int | None:
    """Steps, or epochs where one has just ended."""
    if unit == "steps":
        return moment.step
    return moment.epoch if moment.epoch_end else None


@dataclass(frozen=True)
class _Every(Schedule):
    n: int
    unit: Unit

    def due(self, moment: Moment) -> bool:
        count = _count(moment, self.unit)
        return count is not None and count > 0 and count % self.n == 0


@dataclass(frozen=True)
class _At(Schedule):
    counts: frozenset[int]
    unit: Unit

    def due(self, moment: Moment) -> bool:
        return _count(moment, self.unit) in self.counts


@dataclass(frozen=True)
class _Between(Schedule):
    first: int
    last: int
    unit: Unit

    def due(self, moment: Moment) -> bool:
        count = moment.step if self.unit == "steps" else moment.epoch
        return count is not None and self.first <= count <= self.last


def every_n_steps(n: int) -> Schedule:
    """After steps n, 2n, 3n and so on.

    Raises:
        SettingsError: ``n`` is not a positive integer; so for every number of steps or epochs below.
    """
    return _Every(_positive(n, "n"), "steps")


def every_epoch(n: int = 1) -> Schedule:
    """At the end of every ``n``-th epoch."""
    return _Every(_positive(n, "n"), "epochs")


def at(counts: Iterable[int], unit: Unit = "steps") -> Schedule:
    """After the given steps, or at the end of the given epochs."""
    return _At(frozenset(_integer(count, "counts", 0) for count in counts), _unit(unit))


def between_steps(first: int, last: int) -> Schedule:
    """At every step from ``first`` to ``last``, both included; meant to be combined by ``&``."""
    return _between(first, last, "steps")


def between_epochs(first: int, last: int) -> Schedule:
    """At every step while ``first`` to ``last`` epochs are completed; meant to be combined by ``&``."""
    return _between(first, last, "epochs")


def log_spaced(count: int, last: int, first: int = 1, unit: Unit = "steps") -> Schedule:
    """``count`` moments from ``first`` to ``last`` whose ratios are equal, as far as whole numbers allow.

    Early training changes a network most, so equal ratios give more checkpoints there. Where rounding makes two of the
    moments equal, the later one moves up, so there are always ``count``.

    Raises:
        SettingsError: there are no ``count`` whole numbers from ``first`` to ``last``.
    """
    count, last, first = _positive(count, "count"), _positive(last, "last"), _positive(first, "first")
    if last - first + 1 < count or (count == 1 and first != last):
        raise SettingsError(f"There are no {count} log-spaced {_unit(unit)} from {first} to {last}; ask for fewer.")
    counts: list[int] = []
    for index in range(count):
        exact = first * (last / first) ** (index / max(count - 1, 1))
        # Room is left for those still to come, all of which must fit up to `last`.
        counts.append(min(max(round(exact), counts[-1] + 1 if counts else first), last - (count - 1 - index)))
    return at(counts, unit)


def early_and_late(early: int, late: int, total: int, every: int = 1, unit: Unit = "steps") -> Schedule:
    """Every ``every`` steps (or epochs) up to ``early``, and again from ``late`` to ``total``.

    The two windows in which Agarwal et al. (CVPR 2022, section 3) compare the score: the network learns other things
    at first than in the end. ``total`` is always among the moments.

    Raises:
        SettingsError: ``early`` <= ``late`` <= ``total`` does not hold.
    """
    every, early, total = _positive(every, "every"), _positive(early, "early"), _positive(total, "total")
    late = _positive(late, "late")
    if not early <= late <= total:
        raise SettingsError(
            f"Windows up to {early} and from {late} to {total} do not follow each other; give early <= late <= total."
        )
    return at([*range(every, early + 1, every), *range(total, late - 1, -every)], unit)


def _between(first: int, last: int, unit: Unit) -> Schedule:
    first, last = _integer(first, "first", 0), _integer(last, "last", 0)
    if last < first:
        raise SettingsError(f"The window from {first} to {last} is empty; give the smaller number first.")
    return _Between(first, last, unit)


def _unit(unit: Any) -> Unit:
    if unit not in ("steps", "epochs"):
        raise SettingsError(f"unit {unit!r} is not known; choose steps or epochs.")
    return unit


def _positive(value: Any, name: str) -> int:
    return _integer(value, name, 1)


def _integer(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise SettingsError(f"{name} must be an integer of at least {least}, not {value!r}.")
    return int(value)
