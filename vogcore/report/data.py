"""The examples behind the scores: opened, compared with what was scored, and told apart as images, text or features."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore._paths import reason
from vogcore._types import ExampleSource
from vogcore.data import ArraySource, Preprocess, open_source
from vogcore.errors import DataError, SettingsError, VogcoreError, VogcoreWarning
from vogcore.report.images import Look, check_layout, image_layout, look_of, undo_preprocess
from vogcore.report.parts import plain
from vogcore.store import Scores

__all__ = ["MOST_BYTES_COMPARED", "Data", "compare", "open_data", "read_vocabulary", "recorded_preprocess"]

MOST_BYTES_COMPARED = 4 << 30
"""Data larger than this are compared by their number alone: reading them would take minutes."""
_SAMPLE = 64
_MOST_TOKENS = 10_000_000


@dataclass(eq=False)
class Data:
    """Examples that fit the scores.

    Attributes:
        source: where they are read.
        kind: ``"images"``, ``"tokens"`` (integers of a vocabulary), ``"features"`` or ``"other"``.
        look: how images are shown, else None.
        vocabulary: text of every token, or None.
        note: what was not checked, or "".
    """

    source: ExampleSource
    kind: str
    look: Look | None = None
    vocabulary: Sequence[str] | None = None
    note: str = ""

    def example(self, position: int) -> npt.NDArray:
        """One example, as it is shown: with mean and std of the preprocessing taken back for images.

        Raises:
            DataError: it cannot be read.
        """
        raw = self.source.read(position, position + 1)[0]
        if self.look is None:
            return raw
        return undo_preprocess(raw, getattr(self.source, "preprocess", None), self.look.layout)

    def token(self, index: int) -> str:
        """Text of a token; its number where there is no text."""
        if self.vocabulary is None or not 0 <= index < len(self.vocabulary):
            return f"#{index}"
        return self.vocabulary[index]

    def feature_names(self, count: int) -> list[str]:
        """Names of the features: those of the source where it knows them, else their numbers."""
        names = getattr(self.source, "feature_names", None)
        if names is not None and len(names) == count:
            return [plain(str(name)) for name in names]
        return [f"feature {at}" for at in range(count)]


def recorded_preprocess(scores: Scores) -> Preprocess | None:
    """The preprocessing that the scores were made with, as their file records it."""
    recorded = scores.settings.get("preprocess")
    if not isinstance(recorded, dict):
        return None
    try:
        return Preprocess(**{name: recorded.get(name) for name in ("scale", "mean", "std", "layout")})
    except (VogcoreError, TypeError):
        return None  # written by somebody else; the data are then shown as they are stored


def open_data(
    data: Any, scores: Scores, *, layout: str | None = None, vocabulary: Sequence[str] | None = None, **options: Any
) -> Data:
    """Open examples, check that they are those that were scored, and find out what they are.

    Args:
        data: an :class:`~vogcore._types.ExampleSource`, or whatever :func:`vogcore.data.open_source` opens.
        scores: the scores.
        layout: axes of an image as the model gets it, one of ``hw``, ``hwc``, ``chw``; None to find out.
        vocabulary: text of every token; makes integers of one axis a text.
        options: for :func:`vogcore.data.open_source`. Without a preprocessing there, and for data that are no source
            yet, it is the recorded one.

    Raises:
        DataError: the data cannot be read, or are others than those that were scored.
        SettingsError: the layout does not fit.
    """
    if not isinstance(data, ExampleSource) and options.get("preprocess") is None:
        options["preprocess"] = recorded_preprocess(scores)
    with warnings.catch_warnings():
        # Copies among the examples were told when they were scored; the score file has that warning.
        warnings.simplefilter("ignore", VogcoreWarning)
        source = open_source(data, require_labels=False, **options)
        note = compare(source, scores)
    kind, found = _kind(source, scores, layout, vocabulary)
    look = None if found is None else _look(source, scores, found)
    return Data(source, kind, look, vocabulary, note)


def compare(source: ExampleSource, scores: Scores) -> str:
    """Check that a source holds the examples that were scored: their number, and their fingerprint where recorded.

    Returns:
        What was not checked, in a sentence, or "".

    Raises:
        DataError: they are others.
    """
    if len(source) != len(scores):
        raise DataError(
            f"{source.name} holds {len(source):,} examples and the scores are of {len(scores):,}; give the data that "
            "were "
            "scored."
        )
    data = scores.settings.get("data")
    recorded = data.get("sha256") if isinstance(data, dict) else None
    if not isinstance(recorded, str) or not recorded:
        return "The score file records no fingerprint of the data: that these are the same examples was not checked."
    size = len(source) * math.prod(source.shape) * np.dtype(source.dtype).itemsize
    if size > MOST_BYTES_COMPARED:
        return "The data are large: their number was compared with that of the scores, not their content."
    if source.fingerprint() == recorded:
        return ""
    scored = recorded_preprocess(scores)
    if isinstance(source, ArraySource) and source.preprocess != scored:
        # Other values of mean or std, given to show the pictures, are no other data.
        plainly = ArraySource.with_changes(source)
        plainly.preprocess = None
        if plainly.with_changes(preprocess=scored).fingerprint() == recorded:
            return ""
    raise DataError(
        f"{source.name} holds other examples or labels than those that were scored (its fingerprint differs); give "
        "the data "
        "and the labels that were scored."
    )


def _kind(
    source: ExampleSource, scores: Scores, layout: str | None, vocabulary: Sequence[str] | None
) -> tuple[str, str | None]:
    """What the examples are, and the layout of images."""
    if layout is not None:
        check_layout(layout, source.shape)
        return "images", layout
    whole = np.dtype(source.dtype).kind in "iu"
    # Integers have no gradient: where one was taken at an inner tensor of the model, they are tokens.
    if whole and len(source.shape) == 1 and (vocabulary is not None or scores.settings.get("wrt")):
        return "tokens", None
    found = image_layout(source.shape)
    if found is not None:
        return "images", found
    return ("features" if len(source.shape) == 1 else "other"), None


def _look(source: ExampleSource, scores: Scores, layout: str) -> Look:
    preprocess = getattr(source, "preprocess", None)
    chosen = np.unique(np.linspace(0, len(source) - 1, min(_SAMPLE, len(source))).astype(np.int64))
    sample = []
    for position in chosen.tolist():
        try:
            sample.append(undo_preprocess(source.read(position, position + 1)[0], preprocess, layout))
        except DataError as error:  # one that is damaged is told where it is shown
            damaged = error
    if not sample:
        raise damaged
    return look_of(np.stack(sample), layout)


def read_vocabulary(path: str | os.PathLike[str]) -> list[str]:
    """The tokens of a text file (UTF-8), one a line; the first line is token 0.

    Raises:
        SettingsError: the file cannot be read, or is no such text.
    """
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            tokens = [line.rstrip("\r\n") for line in file]
    except OSError as error:
        raise SettingsError(f"Cannot read the vocabulary {os.fspath(path)}: {reason(error)}.") from None
    except UnicodeDecodeError:
        raise SettingsError(
            f"The vocabulary {os.fspath(path)} is not UTF-8 text; save it with one token a line."
        ) from None
    if not tokens or len(tokens) > _MOST_TOKENS:
        raise SettingsError(f"The vocabulary {os.fspath(path)} has {len(tokens):,} lines; it needs one token a line.")
    return tokens
