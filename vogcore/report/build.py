"""``write_report``: a score file, and the examples where they are given, as one page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vogcore._paths import check_output, write_whole
from vogcore.errors import DataError, SettingsError
from vogcore.report import curves, gallery, sections
from vogcore.report.data import Data, open_data
from vogcore.report.examples import Maker
from vogcore.report.findings import Findings, find
from vogcore.report.html import render
from vogcore.report.images import IMAGE_LAYOUTS
from vogcore.report.measures import error_bins
from vogcore.report.parts import Section, plain
from vogcore.report.svg import need_packages
from vogcore.store import Scores, open_scores
from vogcore.store.schema import ALL

__all__ = ["write_report"]

_NO_DATA = (
    "The examples themselves are not shown, because no data were given: vogcore report scores.h5 --data train.npz -o "
    "report.html."
)


def write_report(
    scores: Scores | str | os.PathLike[str],
    path: str | os.PathLike[str],
    source: Any = None,
    *,
    stage: str = ALL,
    score: str = "vog",
    images: int = 6,
    classes: int = 20,
    layout: str | None = None,
    vocabulary: Sequence[str] | None = None,
    title: str | None = None,
    overwrite: bool = False,
    **options: Any,
) -> list[str]:
    """Write a report on scores as one HTML file that needs no network, also not for style, script or pictures.

    Args:
        scores: the scores, or the path of their file.
        path: the file to write.
        source: the examples that were scored: an :class:`~vogcore._types.ExampleSource` or anything that
            :func:`vogcore.data.open_source` opens; None shows no examples. Without ``preprocess`` in the options, what
            is opened here is preprocessed as the score file records.
        stage: which window of checkpoints the examples are chosen by.
        score: which of its scores: ``"vog"``, ``"vog_raw"`` or ``"vog_relative"``.
        images: examples at each end of the score in each class, 0 for none.
        classes: at how many classes examples are shown; the ones with the highest error rate where there are more.
        layout: axes of one example as the model gets it, where they are not clear: ``"hw"``, ``"hwc"`` or ``"chw"``.
        vocabulary: text of every token, for examples that are rows of token numbers.
        title: of the page; default: the name of the score file.
        overwrite: replace a file that exists.
        options: for :func:`vogcore.data.open_source`: ``labels``, ``x_name``, ``y_name``, ``preprocess``.

    Returns:
        What a reader of the report will miss, a sentence each: data that were refused, say. The report says so, too.

    Raises:
        SettingsError: there is no such stage, score or layout, or a number is negative.
        StoreError: the scores cannot be read, or the file cannot be written; nothing half-written is left.
        VogcoreError: a package of the extra ``report`` is missing.
    """
    check_output(path, overwrite)
    need_packages()
    if not isinstance(scores, Scores):
        scores = open_scores(scores)
    if getattr(scores.stage(stage), _known_score(score)) is None:
        raise SettingsError(f"Stage {stage!r} has no {score}; choose another score.")
    if images < 0 or classes < 1:
        raise SettingsError(
            f"images={images}, classes={classes} are not possible; give 0 or more images, 1 or more classes."
        )
    if layout is not None and layout not in IMAGE_LAYOUTS:
        raise SettingsError(f"The layout of images {layout!r} is not known; give one of {', '.join(IMAGE_LAYOUTS)}.")
    data, why_not = None, _NO_DATA
    if source is not None:
        try:
            data = open_data(source, scores, layout=layout, vocabulary=vocabulary, **options)
        except DataError as error:
            why_not = f"The examples are not shown: {plain(str(error))}"
    try:
        text = _page(scores, data, why_not, stage, score, images, classes, title)
    finally:
        close = getattr(data.source, "close", None) if data is not None and source is not data.source else None
        if close is not None:
            close()
    write_whole(path, memoryview(text.encode("utf-8", "backslashreplace")), overwrite)
    return [why_not] if source is not None and data is None else []


def _known_score(score: str) -> str:
    if score not in ("vog", "vog_raw", "vog_relative"):
        raise SettingsError(f"There is no score {score!r}; choose one of vog, vog_raw, vog_relative.")
    return score


def _page(
    scores: Scores,
    data: Data | None,
    why_not: str,
    stage: str,
    score: str,
    images: int,
    most_classes: int,
    title: str | None,
) -> str:
    findings = find(scores)
    maker = Maker(scores, findings, data, stage, score)
    parts: list[Section] = [
        sections.summary(scores, findings),
        sections.which_end(findings),
        curves.deciles(findings),
        curves.kept(scores, findings, stage, score),
        curves.distribution(scores, findings, stage),
        curves.early_late(scores, findings),
        curves.companions(findings, stage, score),
        curves.classes(scores, findings, stage, score),
    ]
    shown = gallery.detailed(scores, data, maker, stage, score)
    grids = gallery.grids(scores, findings, data, maker, stage, score, images, most_classes) if images else None
    by_feature = gallery.features(scores, data)
    for section in (by_feature, grids, shown):
        if section is not None:
            parts.append(section)
    if data is None:
        (grids or shown).missing.insert(0, why_not)
    name = os.path.basename(scores.path) if scores.path else "scores"
    heading = plain(title if title is not None else f"VoG report: {name}")
    return render(heading, parts, _numbers(scores, findings), scores.vogcore_version)


def _numbers(scores: Scores, findings: Findings) -> dict[str, Any]:
    """The main figures, for other programs that read the page."""
    bins = {}
    if findings.correct is not None:
        for f in findings.scores:
            usable = f.ranked.finite & findings.labelled
            if usable.any():
                found = error_bins(f.ranked.values[usable], ~findings.correct[usable])
                bins[f.title] = found.rate.tolist()
    return {
        "examples": len(scores),
        "classes": scores.classes if len(scores.classes) <= 1000 else len(scores.classes),
        "checkpoints": [c.name for c in scores.checkpoints],
        "created": scores.created,
        "scores": [
            {
                "stage": f.stage or None,
                "name": f.name,
                "claimed": f.claimed,
                "measured": f.direction.measured,
                "auroc_errors": f.direction.auroc_errors,
                "auroc_interval": [f.low, f.high],
                "spearman_loss": f.direction.spearman_loss,
                "spearman_interval": [f.direction.spearman_low, f.direction.spearman_high],
                "n_errors": int(f.direction.n_errors),
                "n_examples": int(f.direction.n_examples),
                "not_finite": int(np.sum(~f.ranked.finite)),
            }
            for f in findings.all
        ],
        "error_rate_by_decile": bins,
    }
