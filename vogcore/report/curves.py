"""The sections of a report with charts of all examples: distributions, deciles, kept subsets, stages, companions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vogcore.report import charts, tables
from vogcore.report.findings import Finding, Findings
from vogcore.report.measures import (
    density,
    emptied_classes,
    error_bins,
    histogram,
    kept_accuracy,
    mean_by_bin,
    quantiles_by_class,
    rank_correlations,
)
from vogcore.report.parts import MINUS, Chart, Row, Section, Table, number, plain
from vogcore.report.sections import NO_LABELS, hard_end
from vogcore.store import Scores
from vogcore.store.schema import ALL

__all__ = ["SHARES", "classes", "companions", "deciles", "distribution", "early_late", "kept"]

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the hardest examples that are set aside."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MOST_CLASSES_DRAWN = 30
_MOST_STAGES = 8
_NO_VALUES = "The score {} has no finite value: there is nothing to draw. The warnings of the run may say why."


def _panels(findings: Findings, name: str) -> list[Finding]:
    """The findings of one score over the stages."""
    return [f for f in findings.scores if f.name == name]


def distribution(scores: Scores, findings: Findings, stage: str) -> Section:
    """Histograms over all examples and quantiles by class."""
    section = Section(
        "distribution",
        "Distribution of the scores",
        notes=[
            "The outermost half per cent of the examples on each side is counted in the first and the last bin. "
            "Normalised in each class, VoG has mean 0 and standard deviation 1 there; how the classes differ shows in "
            "raw VoG."
        ],
    )
    for name in ("vog", "vog_relative"):
        found = _panels(findings, name)[:_MOST_STAGES]
        curves = {f.stage: histogram(f.ranked.values[f.ranked.finite]) for f in found if f.ranked.n}
        if curves:
            ident = f"chart-distribution-{name.replace('_', '-')}"
            several = tables.histograms(curves, name)
            svg = charts.distribution(curves, name, ident)
            section.charts.append(Chart(ident, f"Distribution of {name}", svg, _joined(several, list(curves))))
        elif found:
            section.missing.append(_NO_VALUES.format(name))
    if scores.classes and findings.labelled.any():
        section.charts += _by_class(scores, findings, stage)
    else:
        section.missing.append("There is no distribution by class, since the score file has no labels.")
    return section


def _joined(several: list[Table], names: list[str]) -> Table:
    """Tables of one form below each other, with the name of each in a first column."""
    rows: list[Row] = [[plain(name), *row] for name, table in zip(names, several, strict=True) for row in table.rows]
    return Table("Examples by score", ["stage", *several[0].header], rows, left=1)


def _by_class(scores: Scores, findings: Findings, stage: str) -> list[Chart]:
    found = findings.of(stage, "vog_raw")
    if found is None or not found.ranked.n:
        return []
    values = quantiles_by_class(found.ranked.values, scores.labels, len(scores.classes), _QUANTILES)
    order = np.argsort(-np.nan_to_num(values[:, 2], nan=-np.inf), kind="stable")
    order = order[~np.isnan(values[order, 2])]
    notes = []
    drawn = order
    if len(order) > _MOST_CLASSES_DRAWN:
        half = _MOST_CLASSES_DRAWN // 2
        drawn = np.concatenate([order[:half], order[-half:]])
        notes = [
            f"Drawn are the {half} classes with the highest and the {half} with the lowest median of {len(order):,}."
        ]
    header = ["class", *(f"{100 * q:.0f}% quantile" for q in _QUANTILES)]
    rows: list[Row] = [[plain(scores.classes[c]), *(number(v) for v in values[c])] for c in order.tolist()]
    title = f"Raw VoG by class, stage {plain(stage)}"
    names = [scores.classes[c] for c in drawn.tolist()]
    svg = charts.quantiles(names, values[drawn], "vog_raw", "chart-by-class")
    return [Chart("chart-by-class", title, svg, Table(title, header, rows), notes)]


def deciles(findings: Findings) -> Section:
    """Error rate by decile of VoG and of relative VoG, for every stage."""
    section = Section(
        "deciles",
        "Error rate by decile of VoG",
        notes=[
            "The examples are sorted by the score and cut into ten equal parts, lowest first: the figure of the "
            "paper, with "
            "the errors of the last checkpoint on these same examples. Lines are 95% intervals (Wilson); dashed is the "
            "rate of all examples."
        ],
    )
    if findings.correct is None:
        section.missing.append(NO_LABELS)
        return section
    errors = ~findings.correct
    for name in ("vog", "vog_relative"):
        panels = {}
        for f in _panels(findings, name):
            usable = f.ranked.finite & findings.labelled
            if usable.any():
                panels[f.stage] = error_bins(f.ranked.values[usable], errors[usable])
                if np.ptp(f.ranked.values[usable]) == 0:
                    section.missing.append(f"{plain(f.title)} is the same for all examples: its deciles mean nothing.")
        if not panels:
            if _panels(findings, name):
                section.missing.append(_NO_VALUES.format(name))
            continue
        overall = float(errors[findings.labelled].mean())
        ident = f"chart-deciles-{name.replace('_', '-')}"
        drawn = dict(list(panels.items())[:_MOST_STAGES])
        svg = charts.deciles(drawn, overall, name, "error rate", ident)
        table = tables.deciles(panels, name, "error rate")
        section.charts.append(Chart(ident, f"Error rate by decile of {name}", svg, table))
    return section


def kept(scores: Scores, findings: Findings, stage: str, score: str) -> Section:
    """Accuracy of what is left when the hardest examples are set aside, by several scores."""
    section = Section(
        "kept",
        "Accuracy when the hardest examples are set aside",
        notes=[
            "Accuracy of the last checkpoint on the examples that are kept when the hardest ones by a score are set "
            "aside; "
            "nothing is trained anew. A score that says nothing about errors stays on the dotted line."
        ],
    )
    if findings.correct is None:
        section.missing.append(NO_LABELS)
        return section
    main = findings.of(stage, score)
    chosen = [f for f in findings.scores if f.name == "vog" or (f.name == "vog_relative" and f.stage == stage)]
    if main is not None and main not in chosen:
        chosen.insert(0, main)
    curves, ends = {}, []
    for f in chosen:
        usable = f.ranked.finite & findings.labelled
        if usable.any():
            curves[plain(f.title)] = kept_accuracy(
                f.ranked.values[usable], findings.correct[usable], f.direction.hard_is_high, SHARES
            )
            ends.append(f"{plain(f.title)}: {hard_end(f)}")
    if main is None or not curves:
        section.missing.append(_NO_VALUES.format("vog"))
        return section
    section.notes.append(f"Which end is set aside first: {'; '.join(ends)}.")
    usable = main.ranked.finite & findings.labelled
    emptied = [0] * len(SHARES)
    if usable.any():
        emptied = emptied_classes(
            main.ranked.values[usable], scores.labels[usable], main.direction.hard_is_high, SHARES
        )
    overall = float(findings.correct[findings.labelled].mean())
    drawn = dict(list(curves.items())[:6])
    svg = charts.kept(SHARES, drawn, overall, "chart-kept")
    table = tables.kept(SHARES, curves, overall, emptied)
    section.charts.append(Chart("chart-kept", "Accuracy of the examples that are kept", svg, table))
    if any(emptied):
        at = next(i for i, n in enumerate(emptied) if n)
        section.warnings.append(
            f"Setting aside {100 * SHARES[at]:.0f}% by {plain(main.title)} leaves {emptied[at]:,} "
            f"{'class' if emptied[at] == 1 else 'classes'} without any example."
        )
    return section


def early_late(scores: Scores, findings: Findings) -> Section:
    """VoG of the first against the last stage."""
    section = Section("early-late", "VoG early against late")
    names = [name for name in scores.stages if name != ALL]
    pair = ("early", "late") if {"early", "late"} <= set(names) else (names[0], names[-1]) if len(names) > 1 else None
    if pair is None:
        section.missing.append(
            "There are no two stages to compare. From six checkpoints on there are early, middle and late; with "
            "fewer, name "
            "them: --stage early=0:2 --stage late=2:4."
        )
        return section
    first, second = (findings.of(name, "vog") for name in pair)
    assert first is not None
    assert second is not None
    both = first.ranked.finite & second.ranked.finite
    if not both.any():
        section.missing.append(_NO_VALUES.format("vog"))
        return section
    x, y = first.ranked.values[both], second.ranked.values[both]
    rho = first.ranked.spearman(second.ranked)
    a, b = (plain(name) for name in pair)
    said = f"The rank correlation between the two is {rho:+.2f}.".replace("-", MINUS)
    svg = charts.density_panels(
        [(f"vog ({a})", f"vog ({b})", *density(x, y))], f"VoG at stage {a} and {b}", said, "chart-early-late"
    )
    table = tables.contingency(x, y, (a, b))
    section.charts.append(
        Chart(
            "chart-early-late",
            f"VoG at stage {a} (across) and {b} (up)",
            svg,
            table,
            [
                said,
                "The stronger the colour, the more examples, on a logarithmic scale; those beyond the outer half per "
                "cent lie on the border.",
            ],
        )
    )
    return section


def companions(findings: Findings, stage: str, score: str) -> Section:
    """Companion metrics beside VoG: rank correlations, and each against the score."""
    section = Section(
        "companions",
        "Companion metrics beside VoG",
        notes=["Measures that the logits of the same checkpoints give, and how they go with VoG."],
    )
    others = findings.companions
    if not others:
        section.missing.append(
            "The score file has no companion metrics: they are made from logits. Score from checkpoints, or give "
            "logits "
            "beside the gradients."
        )
        return section
    columns = [f for f in findings.scores if f.stage == stage] + others
    with np.errstate(invalid="ignore"):
        values = rank_correlations([f.ranked for f in findings.all], [f.ranked for f in columns])
    section.tables.append(tables.correlations(findings.all, columns, values))
    main = findings.of(stage, score)
    drawn = [f for f in others if f.name != "correct" and f.ranked.n]
    if main is None or not main.ranked.n or not drawn:
        section.missing.append(_NO_VALUES.format(score))
        return section
    panels = []
    for f in drawn[:9]:
        both = main.ranked.finite & f.ranked.finite
        if both.any():
            cells = density(main.ranked.values[both], f.ranked.values[both], 40)
            panels.append((main.title, f.name, *cells))
    usable = main.ranked.finite
    means = mean_by_bin(main.ranked.values[usable], [f.ranked.values[usable] for f in others])
    title = f"Companions against {plain(main.title)}"
    svg = charts.density_panels(panels, title, "The table gives the mean of each by decile.", "chart-companions")
    table = tables.means(plain(main.title), [f.name for f in others], means)
    section.charts.append(Chart("chart-companions", title, svg, table))
    return section


def classes(scores: Scores, findings: Findings, stage: str, score: str) -> Section:
    """The table of classes."""
    section = Section("classes", "Classes")
    if not scores.classes:
        section.missing.append("There are no classes in the score file: score with labels, or with class names.")
        return section
    hardest: npt.NDArray[np.int64] = scores.hardest(max(len(scores) // 10, 1), stage=stage, score=score)
    errors = None if findings.correct is None else ~findings.correct
    section.notes.append("A click on the head of a column sorts by it, a second one the other way round.")
    section.tables.append(tables.classes(scores, stage, errors, hardest))
    return section
