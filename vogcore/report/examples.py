"""Examples on show: which ones, and what is said of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from vogcore.errors import DataError
from vogcore.report import charts, images, tables
from vogcore.report.data import Data
from vogcore.report.findings import Findings
from vogcore.report.parts import Chart, Example, Row, Table, number, plain
from vogcore.store import Scores

__all__ = ["Maker", "choose_classes", "choose_detailed", "extremes"]

_PICTURE_BYTES = 5_000_000
"""All pictures together, as they stand in the page; beyond that examples are shown without one."""
_MOST_TOKENS_SHOWN = 200
_MOST_FEATURES = 20
_SMALL_TEXT = 160


def choose_classes(
    count: int, labels: npt.NDArray[np.int64], errors: npt.NDArray[np.bool_] | None, most: int
) -> list[int]:
    """Which classes are shown with examples: all, or those with the highest error rate (else: the largest).

    Args:
        count: number of classes.
        labels: (N,) class index, -1 for none.
        errors: (N,) or None.
        most: how many.
    """
    members = np.bincount(labels[labels >= 0], minlength=count)
    if count > most:
        weight = members.astype(np.float64)
        if errors is not None:
            wrong = np.bincount(labels[(labels >= 0) & errors], minlength=count)
            weight = wrong / np.maximum(members, 1)
        chosen = np.sort(np.argsort(-weight, kind="stable")[:most])
    else:
        chosen = np.arange(count)
    return [int(c) for c in chosen if members[c] > 0]


def extremes(values: npt.NDArray, members: npt.NDArray[np.int64], n: int) -> tuple[list[int], list[int]]:
    """Positions of the n lowest (lowest first) and the n highest (highest first) of some examples, none in both.

    Args:
        values: (N,) scores; those that are not finite are left out.
        members: positions to choose from.
        n: how many at each end.
    """
    some = members[np.isfinite(values[members])]
    order = some[np.argsort(values[some], kind="stable")].tolist()
    n = min(n, (len(order) + 1) // 2)
    return order[:n], order[::-1][: min(n, len(order) - n)]


def choose_detailed(scores: Scores, stage: str, score: str, hardest: int, easiest: int) -> list[int]:
    """Examples that are shown in detail: the hardest, those with a map of VoG first, and then the easiest."""
    hard = scores.hardest(len(scores), stage=stage, score=score)
    hard = hard[np.isfinite(getattr(scores.stage(stage), score)[hard])]
    chosen: list[int] = []
    if scores.maps is not None:
        mapped = np.isin(hard, scores.maps.index)
        chosen = hard[mapped][:hardest].tolist()
    rest = [int(p) for p in hard[: hardest + len(chosen)] if p not in set(chosen)]
    chosen += rest[: hardest - len(chosen)]
    last = [int(p) for p in hard[::-1][:easiest] if p not in set(chosen)]
    return chosen + last


class Maker:
    """Makes examples ready to be shown, with pictures as long as there is room in the page.

    Args:
        scores: the scores.
        findings: what was measured of them.
        data: the examples, or None.
        stage: which stage is shown.
        score: which score.
    """

    def __init__(self, scores: Scores, findings: Findings, data: Data | None, stage: str, score: str) -> None:
        self._scores = scores
        self._findings = findings
        self._data = data
        self._stage = stage
        self._score = score
        self._room = _PICTURE_BYTES
        self.left_out = 0
        """How many examples have no picture because there was no room."""

    def small(self, position: int) -> Example:
        """An example of a grid: picture or text, label, prediction, score."""
        scores = self._scores
        example = Example(
            plain(str(scores.ids[position]), 80), position, self._name(int(scores.labels[position])),
            facts=[(self._score, number(float(getattr(scores.stage(self._stage), self._score)[position])).text)],
        )  # fmt: skip
        if scores.predictions_class is not None and len(scores.predictions_class):
            guess = int(scores.predictions_class[-1][position])
            example.predicted = self._name(guess)
            example.wrong = 0 <= int(scores.labels[position]) != guess
        self._show(example)
        return example

    def detailed(self, position: int, prefix: str) -> Example:
        """An example with everything that is known of it.

        Args:
            position: which.
            prefix: unique in the page.
        """
        example = self.small(position)
        facts = [("position", f"{position:,}")]
        chosen = self._scores.stage(self._stage)
        for name in ("vog", "vog_raw", "vog_relative"):
            values = getattr(chosen, name)
            if values is not None:
                facts.append((name, number(float(values[position])).text))
        for name, companion in self._scores.companions.items():
            facts.append((plain(name), number(float(companion.values[position])).text))
        example.facts = facts
        self._history(example, prefix)
        self._map(example, prefix)
        return example

    def _name(self, index: int) -> str:
        if index < 0:
            return ""
        classes = self._scores.classes
        return plain(classes[index], 60) if index < len(classes) else f"class {index}"

    def _read(self, example: Example) -> npt.NDArray | None:
        assert self._data is not None
        try:
            return self._data.example(example.position)
        except DataError as error:
            example.notes.append(f"It cannot be shown: {plain(str(error), 300)}")
            return None

    def _show(self, example: Example) -> None:
        data = self._data
        if data is None or data.kind not in ("images", "tokens"):
            return
        values = self._read(example)
        if values is None:
            return
        if data.look is not None:
            example.picture = self._picture(images.as_pixels(values, data.look))
            return
        text = " ".join(data.token(int(index)) for index in values[:_MOST_TOKENS_SHOWN])
        example.notes.append(plain(text, _SMALL_TEXT))

    def _picture(self, pixels: npt.NDArray[np.uint8]) -> str:
        uri = images.data_uri(pixels)
        if len(uri) > self._room:
            self.left_out += 1
            return ""
        self._room -= len(uri)
        return uri

    def _history(self, example: Example, prefix: str) -> None:
        scores, at = self._scores, example.position
        predicted, probability = scores.predictions_class, scores.predictions_label_probability
        if predicted is None and probability is None:
            return
        label = int(scores.labels[at])
        p = None if probability is None or label < 0 else probability[:, at]
        guesses = None if predicted is None else predicted[:, at]
        title = f"History of example {example.ident}"
        names = [] if guesses is None else [self._name(int(guess)) for guess in guesses]
        table = tables.histories([c.name for c in scores.checkpoints], names, p, title)
        if p is None or not len(p) or not np.isfinite(p).any():
            example.charts.append(Chart(f"{prefix}-history", title, "", table))
            return
        steps, axis = _steps(scores)
        right = None if guesses is None else guesses == label
        svg = charts.history(steps, p, right, axis, f"{prefix}-history", title)
        example.charts.append(Chart(f"{prefix}-history", title, svg, table))

    def _map(self, example: Example, prefix: str) -> None:
        maps, data = self._scores.maps, self._data
        if maps is None or not np.any(maps.index == example.position):
            return
        vog = maps.of(example.position)
        if data is not None and data.look is not None:
            values = self._read(example)
            both = None if values is None else images.overlay(images.as_pixels(values, data.look), vog)
            if both is not None:
                example.overlay = self._picture(both)
                example.notes.append(_said_of(vog))
        elif data is not None and data.kind == "tokens":
            self._tokens(example, vog, data, prefix)
        elif vog.ndim == 1:
            names = [f"feature {i}" for i in range(len(vog))] if data is None else data.feature_names(len(vog))
            example.charts.append(feature_chart(names, vog, f"{prefix}-features", f"VoG of example {example.ident}"))
        elif images.image_layout(vog.shape) == "hw":
            example.overlay = self._picture(_alone(vog))
            example.notes.append(_said_of(vog))

    def _tokens(self, example: Example, vog: npt.NDArray, data: Data, prefix: str) -> None:
        values = self._read(example)
        strength = vog.reshape(len(vog), -1).mean(axis=1)
        if values is None or len(values) != len(strength):
            return
        strength = np.nan_to_num(strength, posinf=0.0)
        most = float(strength.max()) or 1.0
        shown = [plain(data.token(int(index)), 60) for index in values[:_MOST_TOKENS_SHOWN]]
        example.notes.clear()  # the same text without colours
        example.tokens = [(token, float(s) / most) for token, s in zip(shown, strength, strict=False)]
        title = f"VoG of each token of example {example.ident}"
        rows: list[Row] = [[token, number(float(s))] for token, s in zip(shown, strength, strict=False)]
        example.charts.append(Chart(f"{prefix}-tokens", title, "", Table(title, ["token", "VoG"], rows)))
        if len(values) > _MOST_TOKENS_SHOWN:
            example.notes.append(f"The first {_MOST_TOKENS_SHOWN} of {len(values):,} tokens.")


def feature_chart(names: Sequence[str], values: npt.NDArray, ident: str, title: str) -> Chart:
    """Bars of the features with the largest VoG, and a table of them."""
    order = np.argsort(-np.nan_to_num(values), kind="stable")[:_MOST_FEATURES]
    shown = [names[i] for i in order]
    rows: list[Row] = [[names[i], number(float(values[i]))] for i in order]
    note = [f"The {len(order)} of {len(values):,} features with the largest VoG."] if len(order) < len(values) else []
    svg = charts.feature_bars(shown, values[order].astype(np.float64), ident, title)
    return Chart(ident, title, svg, Table(title, ["feature", "VoG"], rows), note)


def _said_of(vog: npt.NDArray) -> str:
    """A map in words, for those who do not see it and for those who want its scale."""
    flat = np.nan_to_num(vog.astype(np.float64), posinf=0.0)
    place = ", ".join(str(int(i)) for i in np.unravel_index(int(flat.argmax()), flat.shape))
    return f"VoG of a pixel is {flat.mean():.3g} on average and at most {flat.max():.3g}, at ({place}), counted from 0."


def _alone(vog: npt.NDArray) -> npt.NDArray[np.uint8]:
    """A map without its picture, the brighter the larger."""
    flat = np.nan_to_num(vog.astype(np.float64), posinf=0.0)
    return np.asarray(np.rint(255 * flat / (flat.max() or 1.0)), np.uint8)


def _steps(scores: Scores) -> tuple[list[float], str]:
    """Where the checkpoints stand on an axis: their epochs or steps where all have one, else their number."""
    for name in ("epoch", "step"):
        known = [getattr(c, name) for c in scores.checkpoints]
        if all(value is not None for value in known) and all(a < b for a, b in pairwise(known)):
            return [float(value) for value in known if not math.isnan(value)], name
    return [float(at + 1) for at in range(len(scores.checkpoints))], "checkpoint"
