"""The sections of a report that show examples: both ends of the score in each class, single ones, features."""

from __future__ import annotations

import numpy as np

from vogcore.report.data import Data
from vogcore.report.examples import Maker, choose_classes, choose_detailed, extremes, feature_chart
from vogcore.report.findings import Findings
from vogcore.report.parts import Group, Section, plain
from vogcore.report.sections import hard_end
from vogcore.store import Scores

__all__ = ["detailed", "features", "grids"]

_HARDEST, _EASIEST = 8, 4


def grids(
    scores: Scores, findings: Findings, data: Data | None, maker: Maker, stage: str, score: str, each: int, most: int
) -> Section:
    """The lowest and the highest examples of each class: the paper's figure 1.

    Args:
        scores, findings, data: the scores, what was measured of them, the examples or None.
        maker: makes the examples.
        stage, score: which score.
        each: examples at each end.
        most: classes at the most.
    """
    section = Section("examples", "Lowest and highest examples of each class")
    values = getattr(scores.stage(stage), score)
    found = findings.of(stage, score)
    assert found is not None
    section.notes.append(f"By {plain(found.title)}: {hard_end(found)}. Each end begins with its most extreme example.")
    if not found.ranked.n:
        section.missing.append(f"The score {score} has no finite value: no example can be chosen by it.")
        return section
    low, high = ("hard", "easy") if not found.direction.hard_is_high else ("easy", "hard")
    errors = None if findings.correct is None else ~findings.correct
    chosen = choose_classes(len(scores.classes), scores.labels, errors, most) if findings.labelled.any() else []
    if len(scores.classes) > most and chosen:
        which = "with the highest error rate" if errors is not None else "with the most examples"
        section.notes.append(
            f"Shown are the {len(chosen)} classes {which} of {len(scores.classes):,}; --classes changes how many."
        )
    # One sort instead of a search through all labels for each class.
    order = np.argsort(scores.labels, kind="stable")
    ordered = scores.labels[order]
    for index in chosen or [-1]:
        members = order
        title = "All examples"
        if index >= 0:
            members = order[np.searchsorted(ordered, index) : np.searchsorted(ordered, index, side="right")]
            title = plain(scores.classes[index], 80)
        lowest, highest = extremes(values, members.astype(np.int64), each)
        for end, kind, positions in (("lowest", low, lowest), ("highest", high, highest)):
            if positions:
                examples = [maker.small(position) for position in positions]
                section.groups.append(Group(f"{title}: {end} {score} ({kind} end)", examples))
    if maker.left_out:
        section.missing.append(
            f"{maker.left_out:,} examples have no picture, so that the file stays small; ask for fewer with --images "
            "or "
            "--classes."
        )
    if data is not None and data.note:
        section.notes.append(data.note)
    return section


def detailed(scores: Scores, data: Data | None, maker: Maker, stage: str, score: str) -> Section:
    """Single examples with their map of VoG and their history over the checkpoints."""
    section = Section(
        "details",
        "Single examples",
        notes=[
            f"The hardest by {plain(score)} at stage {plain(stage)}, those with a map of VoG first, and then the "
            "easiest."
        ],
    )
    if scores.predictions_class is None and scores.predictions_label_probability is None:
        section.missing.append(
            "There is no history over the checkpoints, since the score file has no predictions: score from "
            "checkpoints, or "
            "give logits beside the gradients."
        )
    if scores.maps is None:
        section.missing.append(
            "There are no maps that show where in an example the gradient varies: score with --maps 100 to have "
            "those of the "
            "100 hardest."
        )
    positions = choose_detailed(scores, stage, score, _HARDEST, _EASIEST)
    section.cards = [maker.detailed(position, f"example-{at}") for at, position in enumerate(positions)]
    return section


def features(scores: Scores, data: Data | None) -> Section | None:
    """Mean VoG of each feature over the examples with maps; None for data that have no features."""
    maps = scores.maps
    if data is not None and data.kind != "features":
        return None
    if maps is None or not len(maps) or maps.vog.ndim != 2:
        if data is None or data.kind != "features":
            return None
        section = Section("features", "VoG by feature")
        section.missing.append("VoG by feature needs maps: score with --maps 1000, say.")
        return section
    count = maps.vog.shape[1]
    names = [f"feature {at}" for at in range(count)] if data is None else data.feature_names(count)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = maps.vog.astype(np.float64).mean(axis=0)
    section = Section(
        "features",
        "VoG by feature",
        notes=[
            f"Mean over the {len(maps):,} examples that have a map, in units of the model's input: a feature with "
            "large values "
            "has small gradients."
        ],
    )
    section.charts.append(feature_chart(names, mean, "chart-features", "Mean VoG of each feature"))
    return section
