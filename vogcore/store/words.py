"""How scores are spoken of wherever they are shown: their names, their hard end, names from files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vogcore.store.schema import ALL, EASIER, HARDER

if TYPE_CHECKING:
    from vogcore.store.scores import Direction, Scores

__all__ = ["class_name", "clearest", "hard_end", "plain", "score_title"]

_TITLES = {"vog": "VoG", "vog_raw": "raw VoG", "vog_relative": "relative VoG"}


def score_title(score: str) -> str:
    """What ``"vog"``, ``"vog_raw"`` and ``"vog_relative"`` are called in a sentence."""
    return _TITLES.get(score, score)


def hard_end(direction: Direction) -> str:
    """Which end is taken for the hard one, and whether that was measured: ``"high is hard (as measured)"``."""
    end = "high" if direction.hard_is_high else "low"
    if not direction.decided:
        return f"{end} is hard (as claimed; this run does not tell)"
    opposite = ", against the claim" if direction.contradicts else ""
    return f"{end} is hard (as measured{opposite})"


def plain(text: Any, most: int = 40) -> str:
    """A name on one line: what cannot be printed is written out, what is longer than ``most`` characters is cut.

    Names come from files that somebody else wrote.
    """
    # Cut first: a name may be as long as the file.
    text = str(text)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def class_name(scores: Scores, index: int, most: int = 40) -> str:
    """Name of a class index, safe to show; ``"-"`` for none, the index itself where it has no name."""
    if index < 0:
        return "-"
    return plain(scores.classes[index] if index < len(scores.classes) else index, most)


def clearest(scores: Scores) -> tuple[str, str, Direction] | None:
    """Stage, score and direction of the score that goes with the loss most clearly; None where none is decided."""
    best: tuple[str, str, Direction] | None = None
    for name in [ALL, *(name for name in scores.stages if name != ALL)]:
        for score, direction in scores.stages[name].directions.items():
            if direction.measured not in (HARDER, EASIER) or getattr(scores.stages[name], score, None) is None:
                continue
            if best is None or abs(direction.spearman_loss) > abs(best[2].spearman_loss):
                best = (name, score, direction)
    return best
