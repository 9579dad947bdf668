"""The tables of a report, each a function from numbers to a :class:`Table`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vogcore.report.findings import Finding
from vogcore.report.measures import Bins
from vogcore.report.parts import Cell, Row, Table, figure, interval, number, percent, plain
from vogcore.store import Scores

__all__ = [
    "classes",
    "contingency",
    "correlations",
    "deciles",
    "directions",
    "histories",
    "histograms",
    "kept",
    "means",
]

Float64Array = npt.NDArray[np.float64]


def directions(found: Sequence[Finding]) -> Table:
    """Every score of the file: hard end as claimed and as measured, and what that rests on."""
    rows: list[Row] = []
    for f in found:
        d = f.direction
        measured = [d.measured]
        if f.contradicts:
            measured.append("opposite of the claim")
        if f.yardstick:
            measured.append("the yardstick itself")
        missing = len(f.ranked.values) - f.ranked.n
        if missing:
            measured.append(f"{missing:,} examples without a value")
        rows.append(
            [
                plain(f.name),
                plain(f.stage) if f.stage else "companion",
                plain(f.claimed),
                "; ".join(measured),
                figure(d.auroc_errors, ".3f"),
                interval(f.low, f.high),
                figure(d.spearman_loss, "+.3f"),
                interval(d.spearman_low, d.spearman_high, "+.2f"),
            ]
        )
    header = [
        "score", "stage", "hard end as claimed", "hard end as measured", "AUROC for errors", "95% interval",
        "rank correlation with loss", "95% interval ",
    ]  # fmt: skip
    return Table("Every score of the file, as measured on this run", header, rows, left=4)


def histograms(curves: Mapping[str, tuple[npt.NDArray, Float64Array]], score: str) -> list[Table]:
    """Counts of a histogram, a table for each stage."""
    return [
        Table(
            f"{score}, stage {plain(name)}: examples by score",
            ["from", "to", "examples"],
            [[number(a), number(b), f"{int(n):,}"] for a, b, n in zip(edges[:-1], edges[1:], count, strict=True)],
            left=0,
        )
        for name, (count, edges) in curves.items()
    ]


def deciles(panels: Mapping[str, Bins], score: str, what: str) -> Table:
    """Error rate by decile with its interval, a row for each stage and decile."""
    rows: list[Row] = []
    for name, bins in panels.items():
        low, high = bins.interval()
        for at, rate in enumerate(bins.rate):
            rows.append(
                [
                    plain(name),
                    f"{at + 1}",
                    number(bins.lowest[at]),
                    number(bins.highest[at]),
                    f"{int(bins.count[at]):,}",
                    f"{int(bins.errors[at]):,}",
                    percent(rate),
                    interval(100 * low[at], 100 * high[at], ".1f"),
                ]
            )
    header = ["stage", "decile", "lowest score", "highest score", "examples", "errors", what, "95% interval, %"]
    return Table(f"{what.capitalize()} by decile of {score}, lowest first", header, rows, left=2)


def kept(shares: Sequence[float], curves: Mapping[str, Float64Array], overall: float, emptied: Sequence[int]) -> Table:
    """Accuracy of what is kept, a row for each share, and how many classes are emptied."""
    header = ["set aside", *(plain(name) for name in curves), "at random", "classes left empty"]
    rows: list[Row] = [
        [f"{100 * share:.0f}%", *(percent(c[at]) for c in curves.values()), percent(overall), f"{emptied[at]:,}"]
        for at, share in enumerate(shares)
    ]
    return Table("Accuracy of the rest when the hardest examples are set aside", header, rows)


def contingency(first: Float64Array, second: Float64Array, names: tuple[str, str], parts: int = 10) -> Table:
    """How many examples are in each pair of deciles of two scores."""
    places = []
    for values in (first, second):
        place = np.empty(len(values), np.int64)
        for at, members in enumerate(np.array_split(np.argsort(values, kind="stable"), min(parts, len(values)))):
            place[members] = at
        places.append(place)
    count = np.zeros((min(parts, len(first)),) * 2, np.int64)
    np.add.at(count, (places[0], places[1]), 1)
    most = max(int(count.max()), 1)
    rows: list[Row] = [
        [f"{names[0]} {at + 1}", *(Cell(f"{int(n):,}", float(n), float(n) / most) for n in row)]
        for at, row in enumerate(count)
    ]
    header = [f"decile of {names[0]}", *(f"{names[1]} {at + 1}" for at in range(len(count)))]
    return Table(f"Examples by decile of {names[0]} (rows) and {names[1]} (columns), lowest first", header, rows)


def means(score: str, names: Sequence[str], values: Float64Array) -> Table:
    """Mean of every companion in each decile of the score.

    Args:
        score: name of the score.
        names: M companions.
        values: (M, B).
    """
    rows: list[Row] = [[f"{at + 1}", *(number(v) for v in column)] for at, column in enumerate(values.T)]
    return Table(f"Mean of each companion by decile of {score}, lowest first", ["decile", *map(plain, names)], rows)


def correlations(rows: Sequence[Finding], columns: Sequence[Finding], values: Float64Array) -> Table:
    """Rank correlation of every row with every column, coloured by strength and sign."""
    lines: list[Row] = []
    for finding, line in zip(rows, values, strict=True):
        cells = []
        for value in line:
            cell = figure(float(value), "+.2f")
            cells.append(Cell(cell.text, cell.value, 0.0 if math.isnan(value) else float(value)))
        lines.append([plain(finding.title), *cells])
    return Table("Rank correlation (Spearman) between scores", ["", *(plain(c.title) for c in columns)], lines)


def classes(scores: Scores, stage: str, errors: npt.NDArray[np.bool_] | None, hardest: npt.NDArray[np.int64]) -> Table:
    """One row for each class, to be sorted and filtered.

    Args:
        scores: the scores.
        stage: which one the class statistics are of.
        errors: (N,) whether the example is an error, or None where that is not known.
        hardest: positions of the hardest tenth of all examples.
    """
    count, chosen = len(scores.classes), scores.stage(stage)
    labelled = scores.labels >= 0
    members = np.bincount(scores.labels[labelled], minlength=count)
    tenth = np.bincount(scores.labels[hardest][scores.labels[hardest] >= 0], minlength=count)
    header = ["class", "examples", "mean of raw VoG", "std of raw VoG", "share of the hardest 10%"]
    columns: list[list[Cell]] = [
        [number(float(v)) for v in chosen.class_mean],
        [number(float(v)) for v in chosen.class_std],
        [percent(t / m if m else math.nan) for t, m in zip(tenth, members, strict=True)],
    ]
    if errors is not None:
        wrong = np.bincount(scores.labels[labelled & errors], minlength=count)
        header += ["errors", "error rate"]
        columns.append([Cell(f"{int(w):,}", float(w)) for w in wrong])
        columns.append([percent(w / m if m else math.nan) for w, m in zip(wrong, members, strict=True)])
    if "loss" in scores.companions:
        loss = scores.companions["loss"].values.astype(np.float64)
        there = labelled & np.isfinite(loss)
        total = np.bincount(scores.labels[there], weights=loss[there], minlength=count)
        number_of = np.bincount(scores.labels[there], minlength=count)
        header.append("mean loss")
        columns.append([number(t / n if n else math.nan) for t, n in zip(total, number_of, strict=True)])
    rows: list[Row] = [
        [plain(name), Cell(f"{int(members[at]):,}", float(members[at])), *(column[at] for column in columns)]
        for at, name in enumerate(scores.classes)
    ]
    return Table(f"Classes, stage {plain(stage)}", header, rows, ident="classes-table", sortable=True)


def histories(names: Sequence[str], predicted: Sequence[str], probability: npt.NDArray | None, title: str) -> Table:
    """What every checkpoint said of one example.

    Args:
        names: (K,) checkpoints.
        predicted: (K,) names of predicted classes, or empty.
        probability: (K,) probability of the label, or None.
        title: which example.
    """
    header = (
        ["checkpoint"] + (["predicted"] if predicted else []) + (["p of the label"] if probability is not None else [])
    )
    rows: list[Row] = []
    for at, name in enumerate(names):
        row: Row = [plain(name, 60)]
        row += [plain(predicted[at], 60)] if predicted else []
        row += [figure(float(probability[at]), ".3f")] if probability is not None else []
        rows.append(row)
    return Table(title, header, rows, left=2 if predicted else 1)
