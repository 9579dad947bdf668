"""``vogcore show``: what a score file says, in words and columns."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vogcore.errors import SettingsError

if TYPE_CHECKING:
    from vogcore.store import Scores

__all__ = ["add_parser", "report"]

_MOST_CLASSES = 20


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "show",
        help="print what a score file says",
        description="Print the hard end of the score as measured, class statistics, and the hardest and easiest "
        "examples of each class.",
        epilog="examples:\n  vogcore show scores.h5\n  vogcore show scores.h5 -n 20 --overall --stage late",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("scores", metavar="H5", help="score file")
    parser.add_argument("-n", "--examples", type=int, default=5, metavar="N", help="examples in each list (5)")
    parser.add_argument("--overall", action="store_true", help="one list over all classes instead of one for each")
    parser.add_argument("--stage", default="all", help="which stage to list (all)")
    parser.add_argument("--all-classes", action="store_true", help=f"list every class, also beyond {_MOST_CLASSES}")


def run(options: argparse.Namespace) -> int:
    """Print the report."""
    import vogcore

    if options.examples < 0:
        raise SettingsError(f"-n {options.examples} is not possible; give 0 or more.")
    scores = vogcore.open_scores(options.scores)
    most = None if options.all_classes else _MOST_CLASSES
    print(report(scores, options.examples, stage=options.stage, overall=options.overall, most_classes=most))
    return 0


def report(
    scores: Scores, n: int, *, stage: str = "all", overall: bool = False, most_classes: int | None = None
) -> str:
    """Everything that the command prints.

    Raises:
        SettingsError: there is no stage of that name.
    """
    from vogcore.cli._text import contradiction, direction_sentence, wrap

    chosen = scores.stage(stage)
    direction = chosen.direction()
    parts = [
        _heading(scores),
        f"Which end is hard? (score: vog, stage: {stage})\n{direction_sentence(direction)}",
        contradiction(direction),
        f"All scores of the file\n{_directions(scores)}",
        f"Classes (raw VoG, stage {stage})\n{_classes(scores, stage, most_classes)}",
    ]
    if n and (overall or not np.any(scores.labels >= 0)):
        for title, rows in (("Hardest", scores.hardest(n, stage=stage)), ("Easiest", scores.easiest(n, stage=stage))):
            parts.append(f"{title} examples{_end(direction, title)}\n{_examples(scores, rows, stage)}")
    elif n:
        parts += _by_class(scores, n, stage, direction, most_classes)
    if scores.warnings:
        parts.append("Warnings of the run\n" + "\n".join(wrap(f"- {note}") for note in scores.warnings))
    return "\n\n".join(part for part in parts if part)


def _heading(scores: Scores) -> str:
    settings = scores.settings
    data = settings.get("data") or {}
    source = data.get("name") if isinstance(data, dict) else None
    first, last = scores.checkpoints[0].name, scores.checkpoints[-1].name
    target = settings.get("target", "label")
    how = [
        f"gradient of the {settings.get('of', 'logit')} at {target if isinstance(target, str) else f'class {target}'}",
        f"channels: {settings.get('channels', 'mean')}",
        f"{settings.get('reduction', 'std')} over checkpoints",
        f"scale: {settings.get('scale', 'none')}",
        f"normalised: {settings.get('normalise', 'class')}",
    ]
    stages = ", ".join(f"{s.name} ({len(s.checkpoints)})" for s in scores.stages.values())
    lines = [
        f"{scores.path or 'Scores'}: {len(scores):,} examples, {len(scores.classes)} classes, "
        f"{len(scores.checkpoints)} checkpoints ({first} to {last})",
        f"  data:      {source}" if source else "",
        f"  score:     {'; '.join(how)}",
        f"  stages:    {stages}",
        f"  created:   {scores.created}, vogcore {scores.vogcore_version}",
    ]
    return "\n".join(line for line in lines if line)


def _directions(scores: Scores) -> str:
    from vogcore.cli._text import table

    rows = []
    for stage in scores.stages.values():
        for name in ("vog", "vog_raw", "vog_relative"):
            if name not in stage.directions:
                continue
            d = stage.directions[name]
            interval = f"[{d.spearman_low:+.2f}, {d.spearman_high:+.2f}]"
            contradicts = "opposite of the claim" if d.contradicts else ""
            rows.append(
                [
                    stage.name,
                    name,
                    d.measured,
                    f"{d.spearman_loss:+.2f}",
                    interval,
                    f"{d.auroc_errors:.2f}",
                    contradicts,
                ]
            )
    if not rows:
        return "  The direction was not measured: there are no labels with logits."
    return table(
        ["stage", "score", "measured", "rank corr. with loss", "95% interval", "AUROC errors", ""], rows, left=3
    )


def _classes(scores: Scores, stage: str, most: int | None) -> str:
    from vogcore.cli._text import table

    chosen = scores.stage(stage)
    correct = scores.companions.get("correct")
    header = ["class", "examples", "mean", "std"] + (["accuracy"] if correct is not None else [])
    rows = []
    for index, name in enumerate(scores.classes[:most]):
        row = [name, f"{int(scores.class_count[index]):,}", _number(chosen.class_mean[index])]
        row.append(_number(chosen.class_std[index]))
        if correct is not None:
            members = scores.labels == index
            row.append(f"{100 * float(np.mean(correct.values[members])):.1f}%" if members.any() else "-")
        rows.append(row)
    text = table(header, rows)
    return text + _left_out(len(scores.classes), most)


def _by_class(scores: Scores, n: int, stage: str, direction: Any, most: int | None) -> list[str]:
    hardest = scores.hardest(n, per_class=True, stage=stage)
    easiest = scores.easiest(n, per_class=True, stage=stage)
    blocks = []
    for name in scores.classes[:most]:
        if len(hardest[name]) == 0:
            continue
        blocks.append(
            f"Class {name}\n hardest{_end(direction, 'Hardest')}\n{_examples(scores, hardest[name], stage)}\n"
            f" easiest{_end(direction, 'Easiest')}\n{_examples(scores, easiest[name], stage)}"
        )
    note = _left_out(len(scores.classes), most).strip()
    return blocks + ([note] if note else [])


def _examples(scores: Scores, rows: Sequence[int] | np.ndarray, stage: str) -> str:
    from vogcore.cli._text import table

    chosen = scores.stage(stage)
    header, left = ["id", "label"], 2
    predicted = scores.predictions_class
    if predicted is not None and len(predicted):
        header, left = [*header, "predicted"], 3
    loss = scores.companions.get("loss")
    header += ["vog", "raw"] + (["loss"] if loss is not None else [])
    lines = []
    for i in rows:
        row = [str(scores.ids[i]), _name(scores, int(scores.labels[i]))]
        if predicted is not None and len(predicted):
            guess = int(predicted[-1][i])
            row.append(_name(scores, guess) + (" (wrong)" if 0 <= scores.labels[i] != guess else ""))
        row += [f"{chosen.vog[i]:+.3f}", _number(chosen.vog_raw[i])]
        if loss is not None:
            row.append(f"{float(loss.values[i]):.3f}")
        lines.append(row)
    return table(header, lines, left=left)


def _end(direction: Any, title: str) -> str:
    high = direction.hard_is_high == (title == "Hardest")
    how = "as measured" if direction.decided else "as the paper claims, not decided by this run"
    return f" ({'highest' if high else 'lowest'} VoG, {how})"


def _name(scores: Scores, index: int) -> str:
    if index < 0:
        return "-"
    return scores.classes[index] if index < len(scores.classes) else str(index)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _left_out(count: int, most: int | None) -> str:
    if most is None or count <= most:
        return ""
    return f"\n  ... and {count - most:,} more classes (--all-classes lists them)"
