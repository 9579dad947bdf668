"""The sections of a report on the run as a whole; those on single examples are in ``gallery.py``.

Each function gives a section whatever the file holds: where something is missing, the section says what, and how to
get it.
"""

from __future__ import annotations

import json
from typing import Any

from vogcore.report import charts, tables
from vogcore.report.findings import FROM_LAST, FROM_LOGITS, Finding, Findings
from vogcore.report.parts import DASH, MINUS, Chart, Section, Table, interval, plain
from vogcore.scoring.stored import AS_MADE
from vogcore.store import Scores
from vogcore.store.schema import ALL, HARDER, NOT_MEASURED

__all__ = ["NO_LABELS", "hard_end", "summary", "which_end"]

NO_LABELS = (
    "The error of an example is not known: the score file has no labels, or no predictions. Score with labels, from "
    "checkpoints (vogcore score --checkpoints ... --data ... --labels ...), or give logits beside the gradients."
)
_MOST_WARNINGS = 50


def summary(scores: Scores, findings: Findings) -> Section:
    """What was scored, how, when and how long it took."""
    settings = scores.settings
    section = Section("summary", "Summary", warnings=[plain(str(w)) for w in scores.warnings[:_MOST_WARNINGS]])
    facts = [
        ("Examples", f"{len(scores):,}"),
        ("Classes", f"{len(scores.classes):,}"),
        ("Checkpoints", _checkpoints(scores)),
        ("Stages", ", ".join(f"{plain(s.name)} ({len(s.checkpoints)})" for s in scores.stages.values())),
    ]
    labelled = int(findings.labelled.sum())
    if labelled < len(scores):
        facts.append(("Examples with a label", f"{labelled:,}"))
    if findings.correct is not None:
        wrong = int((findings.labelled & ~findings.correct).sum())
        share = f"{100 * wrong / labelled:.1f}%"
        facts.append(("Errors of the last checkpoint", f"{wrong:,} of {labelled:,} ({share})"))
    facts.append(("Differentiated", _differentiated(settings)))
    facts.append(
        (
            "Score",
            plain(
                f"channels: {settings.get('channels', 'mean')}; {settings.get('reduction', 'std')} over the "
                "checkpoints; "
                f"scale: {settings.get('scale', 'none')}; normalised: {settings.get('normalise', 'class')}"
            ),
        )
    )
    data = settings.get("data")
    if isinstance(data, dict):
        shape = f", shape {data['shape']}" if "shape" in data else ""
        facts.append(("Data", plain(f"{data.get('name')}{shape}")))
    if settings.get("provider"):
        facts.append(("Computed on", plain(f"{settings.get('provider')}, {settings.get('device')}")))
    facts.append(("Created", plain(f"{scores.created}, vogcore {scores.vogcore_version}")))
    if "total" in scores.timings:
        parts = [f"{plain(n)} {_seconds(t)}" for n, t in scores.timings.items() if n != "total" and _is_seconds(n)]
        facts.append(("Time", f"{_seconds(scores.timings['total'])} ({', '.join(parts)})"))
    section.facts = facts
    rows = [[plain(str(key)), plain(_json(value))] for key, value in settings.items()]
    section.tables.append(Table("All settings, as recorded", ["setting", "value"], rows, left=2))
    known = [[plain(c.name), _known(c.step), _known(c.epoch), plain(c.sha256[:16])] for c in scores.checkpoints]
    section.tables.append(
        Table("Checkpoints in the order of training", ["name", "step", "epoch", "SHA-256 (beginning)"], known)
    )
    return section


def _is_seconds(name: str) -> bool:
    return name in ("gradients", "kernels", "storage", "data", "sessions", "maps")


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _known(value: int | None) -> str:
    return DASH if value is None else f"{value:,}"


def _checkpoints(scores: Scores) -> str:
    if not scores.checkpoints:
        return "0"
    return plain(f"{len(scores.checkpoints)} ({scores.checkpoints[0].name} to {scores.checkpoints[-1].name})")


def _differentiated(settings: dict[str, Any]) -> str:
    of, target = settings.get("of", "logit"), settings.get("target", "label")
    if of == AS_MADE:
        return "gradients made elsewhere"
    at = {"label": "the label", "predicted": "the predicted class"}.get(str(target), f"class {target}")
    return plain(f"{of} at {at}")


def _seconds(seconds: Any) -> str:
    try:
        value = float(seconds)
    except (TypeError, ValueError):
        return DASH
    if value < 60:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 3600 else f"{value / 3600:.1f} h"


def hard_end(finding: Finding) -> str:
    """Which end of a score is taken as the hard one, and on what grounds, in words."""
    end = "high" if finding.direction.hard_is_high else "low"
    how = "as measured on this run" if finding.direction.decided else "as claimed; this run does not tell"
    return f"the {end} end is the hard one, {how}"


def which_end(findings: Findings) -> Section:
    """The hard end of every score, measured, and which score separates errors best."""
    section = Section(
        "which-end",
        "Which end of each score is the hard one",
        notes=[
            "A high score is not hard by definition. On this run every score was compared with the errors and the "
            "loss of "
            "the last checkpoint on the same examples. AUROC for errors is the chance that an error scores higher "
            "than an "
            "example that is right: 0.5 says nothing, below 0.5 the low end holds the errors. The hard end is the sign "
            "of the rank correlation with the loss where its interval excludes zero and the AUROC does not clearly "
            "say the "
            "opposite."
        ],
    )
    measured = [f for f in findings.all if f.direction.measured != NOT_MEASURED]
    if not measured:
        section.missing.append(f"No direction was measured. {NO_LABELS}")
        section.tables.append(tables.directions(findings.all))
        return section
    main = findings.of(ALL, "vog")
    if main is not None:
        section.notes.insert(0, _about(main))
        if main.contradicts:
            section.warnings.append(
                f"This contradicts the paper (Agarwal et al. 2022), by which {main.claimed}. The lists below follow "
                "the "
                "measurement."
            )
    section.notes += _best(findings)
    section.tables.append(tables.directions(findings.all))
    svg = charts.directions(measured, "chart-directions")
    section.charts.append(
        Chart(
            "chart-directions",
            "AUROC for errors and rank correlation with the loss",
            svg,
            notes=[
                "Circles: VoG; squares: companions; lines: 95% intervals. The numbers are those of the table above."
            ],
        )
    )
    return section


def _about(finding: Finding) -> str:
    d = finding.direction
    figures = (
        f"rank correlation with the loss {d.spearman_loss:+.2f} {interval(d.spearman_low, d.spearman_high, '+.2f')}, "
        "AUROC "
        f"for errors {d.auroc_errors:.2f} {interval(finding.low, finding.high)}, {d.n_errors:,} errors among "
        f"{d.n_examples:,} examples"
    ).replace("-", MINUS)
    if not d.decided:
        return f"Which end of VoG is hard is undecided on this run ({figures}): do not rank examples by it alone."
    high = d.measured == HARDER
    return f"On this run {'higher' if high else 'lower'} VoG is harder ({figures})."


def _best(findings: Findings) -> list[str]:
    """Which score separates errors best, in sentences that say what that is worth."""
    notes = []
    best = findings.best(findings.scores)
    if best is None:
        return ["There are too few errors, or too few examples that are none, to say which score separates them best."]
    notes.append(f"Of the scores of VoG, {_separates(best)}.")
    other = findings.best(findings.companions)
    if other is not None:
        notes.append(f"Of the companions, {_separates(other)}.")
        if other.name in FROM_LAST + FROM_LOGITS:
            notes.append(
                "Companions are made from the very logits that decide what an error is, the last checkpoint's among "
                "them: "
                "part of their lead is so by construction. Loss and correctness of the last checkpoint are what is "
                "measured "
                "against, and have no place in this comparison."
            )
    return notes


def _separates(finding: Finding) -> str:
    area = finding.direction.auroc_errors
    said = f"AUROC {area:.3f} {interval(finding.low, finding.high, '.3f')}"
    if area < 0.5:
        said += f", that is {finding.separation:.3f} read from its low end"
    return f"{plain(finding.title)} separates errors best: {said}"
