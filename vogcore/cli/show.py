"""``vogcore show``: what a score file says, in words and columns."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vogcore.cli._json import add_json_option, print_json
from vogcore.cli._parser import add_command, integer
from vogcore.cli._style import say
from vogcore.store.schema import ALL, NOT_MEASURED, SCORE_NAMES

if TYPE_CHECKING:
    from vogcore.store import Scores

__all__ = ["add_parser", "report"]

_MOST_CLASSES = 20


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "show",
        run,
        summary="print what a score file says",
        description="Print which end of the score is the hard one, as measured, class statistics, and the hardest and\n"
        "easiest examples of each class.",
        examples=[
            "vogcore show scores.h5",
            "vogcore show scores.h5 -n 20 --overall --stage late",
            "vogcore show scores.h5 --score vog_relative",
            "vogcore show scores.h5 --json -n 100 > hardest.json",
        ],
    )
    parser.add_argument("scores", metavar="H5", help="score file")
    parser.add_argument("-n", "--examples", type=integer(0), default=5, metavar="N", help="examples in each list (5)")
    parser.add_argument("--overall", action="store_true", help="one list over all classes instead of one for each")
    parser.add_argument("--stage", default=ALL, help="which stage to list (all)")
    parser.add_argument(
        "--score",
        default="vog",
        metavar="NAME",
        help="which score to list by: vog (normalised, the default), vog_raw or vog_relative",
    )
    parser.add_argument("--all-classes", action="store_true", help=f"list every class, also beyond {_MOST_CLASSES}")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Print the report."""
    import vogcore

    scores = vogcore.open_scores(options.scores)
    if options.json:
        from vogcore.cli._show_json import as_data

        data = as_data(scores, options.examples, stage=options.stage, score=options.score, overall=options.overall)
        print_json("show", data)
        return 0
    text = report(
        scores,
        options.examples,
        stage=options.stage,
        score=options.score,
        overall=options.overall,
        most_classes=None if options.all_classes else _MOST_CLASSES,
    )
    say(text)
    return 0


def report(
    scores: Scores,
    n: int,
    *,
    stage: str = ALL,
    score: str = "vog",
    overall: bool = False,
    most_classes: int | None = None,
) -> str:
    """Everything that the command prints.

    Raises:
        SettingsError: there is no stage or score of that name.
    """
    from vogcore.cli._text import contradiction, direction_sentence, printable, wrap

    chosen = scores.stage(stage)
    direction = chosen.direction(score)
    parts = [
        _heading(scores),
        f"Which end is hard? (score: {score}, stage: {printable(stage)})\n{direction_sentence(direction)}",
        contradiction(direction, score, lists=n > 0),
        f"All scores of the file\n{_directions(scores)}",
        _clearest(scores, stage, score),
        f"Classes ({_raw(scores)}, stage {printable(stage)})\n{_classes(scores, stage, most_classes)}",
    ]
    if n and (overall or not np.any(scores.labels >= 0)):
        for title, order in (("Hardest", scores.hardest), ("Easiest", scores.easiest)):
            rows = order(n, stage=stage, score=score)
            parts.append(f"{title} examples{_end(direction, title, score)}\n{_examples(scores, rows, stage, score)}")
    elif n:
        parts += _by_class(scores, n, stage, score, direction, most_classes)
    if scores.warnings:
        parts.append("Warnings of the run\n" + "\n".join(wrap(f"- {note}") for note in scores.warnings))
    return "\n\n".join(part for part in parts if part)


def _heading(scores: Scores) -> str:
    from vogcore.cli._text import printable

    settings = scores.settings
    data = settings.get("data") or {}
    source = data.get("name") if isinstance(data, dict) else None
    first, last = scores.checkpoints[0].name, scores.checkpoints[-1].name
    how = [
        _differentiated(settings),
        f"channels: {settings.get('channels', 'mean')}",
        f"{settings.get('reduction', 'std')} over checkpoints",
        f"scale: {settings.get('scale', 'none')}",
        f"normalised: {settings.get('normalise', 'class')}",
    ]
    number = len(scores.classes)
    stages = ", ".join(f"{s.name} ({len(s.checkpoints)})" for s in scores.stages.values())
    lines = [
        f"{scores.path or 'Scores'}: {len(scores):,} examples, {number:,} {'class' if number == 1 else 'classes'}, "
        f"{len(scores.checkpoints)} checkpoints ({first} to {last})",
        f"  data:      {source}" if source else "",
        f"  score:     {'; '.join(how)}",
        f"  stages:    {stages}",
        f"  created:   {scores.created}, vogcore {scores.vogcore_version}",
    ]
    return "\n".join(printable(line) for line in lines if line)


def _differentiated(settings: dict[str, Any]) -> str:
    from vogcore.scoring.stored import AS_MADE

    of, target = settings.get("of", "logit"), settings.get("target", "label")
    if of == AS_MADE:
        return "gradients made elsewhere"
    at = "the label" if target == "label" else "the predicted class" if target == "predicted" else f"class {target}"
    return f"gradient of the {of} at {at}"


def _raw(scores: Scores) -> str:
    return "relative VoG" if scores.settings.get("scale") == "relative" else "raw VoG"


def _directions(scores: Scores) -> str:
    from vogcore.cli._text import table

    rows = []
    for stage in scores.stages.values():
        for name in SCORE_NAMES:
            d = stage.direction(name)
            if d.measured == NOT_MEASURED:
                continue
            interval = "-" if math.isnan(d.spearman_low) else f"[{d.spearman_low:+.2f}, {d.spearman_high:+.2f}]"
            contradicts = "opposite of the claim" if d.contradicts else ""
            rows.append(
                [
                    stage.name,
                    name,
                    d.measured,
                    _figure(d.spearman_loss, "+.2f"),
                    interval,
                    _figure(d.auroc_errors, ".2f"),
                    contradicts,
                ]
            )
    if not rows:
        return "  No direction was measured."
    return table(
        ["stage", "score", "measured", "rank corr. with loss", "95% interval", "AUROC errors", ""], rows, left=3
    )


def _classes(scores: Scores, stage: str, most: int | None) -> str:
    from vogcore.cli._text import table

    if not scores.classes:
        return "  There are none."
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


def _by_class(scores: Scores, n: int, stage: str, score: str, direction: Any, most: int | None) -> list[str]:
    from vogcore.cli._text import printable

    # By index and not by name, since two classes may have the same one.
    hardest, easiest = (order(len(scores), stage=stage, score=score) for order in (scores.hardest, scores.easiest))
    blocks = []
    for index, name in enumerate(scores.classes[:most]):
        hard, easy = (order[scores.labels[order] == index][:n] for order in (hardest, easiest))
        if len(hard) == 0:
            continue
        blocks.append(
            f"Class {printable(name)}\n hardest{_end(direction, 'Hardest', score)}\n"
            f"{_examples(scores, hard, stage, score)}\n"
            f" easiest{_end(direction, 'Easiest', score)}\n{_examples(scores, easy, stage, score)}"
        )
    note = _left_out(len(scores.classes), most).strip()
    return blocks + ([note] if note else [])


def _examples(scores: Scores, rows: Sequence[int] | np.ndarray, stage: str, score: str) -> str:
    from vogcore.cli._text import table

    chosen = scores.stage(stage)
    header, left = ["id", "label"], 2
    predicted = scores.predictions_class
    if predicted is not None and len(predicted):
        header, left = [*header, "predicted"], 3
    loss = scores.companions.get("loss")
    scaled = scores.settings.get("scale") == "relative"
    relative = chosen.vog_relative if score == "vog_relative" and not scaled else None
    header += ["vog", "relative" if scaled else "raw"]
    header += (["relative"] if relative is not None else []) + (["loss"] if loss is not None else [])
    lines = []
    for i in rows:
        row = [str(scores.ids[i]), _name(scores, int(scores.labels[i]))]
        if predicted is not None and len(predicted):
            guess = int(predicted[-1][i])
            row.append(_name(scores, guess) + (" (wrong)" if 0 <= scores.labels[i] != guess else ""))
        vog = _number(chosen.vog[i]) if chosen.normalise == "none" else _figure(float(chosen.vog[i]), "+.3f")
        row += [vog, _number(chosen.vog_raw[i])]
        if relative is not None:
            row.append(_number(relative[i]))
        if loss is not None:
            row.append(_figure(float(loss.values[i]), ".3f"))
        lines.append(row)
    return table(header, lines, left=left)


def _clearest(scores: Scores, stage: str, score: str) -> str | None:
    """Which score goes with the loss most clearly, where it is not the one on show."""
    from vogcore.cli._text import printable, wrap

    decided = [
        (abs(d.spearman_loss), d, s.name, name)
        for s in scores.stages.values()
        for name, d in s.directions.items()
        if d.decided and getattr(s, name, None) is not None
    ]
    if not decided:
        return None
    _, direction, best_stage, best = max(decided, key=lambda entry: entry[0])
    if (best_stage, best) == (stage, score):
        return None
    where = "" if best_stage == ALL else f" --stage {printable(best_stage)}"
    return wrap(
        f"Of these, {best} at stage {printable(best_stage)} goes with the loss most clearly on this run "
        f"({direction.spearman_loss:+.2f}, {direction.measured}): list the examples by it with --score {best}{where}."
    )


def _end(direction: Any, title: str, score: str) -> str:
    high = direction.hard_is_high == (title == "Hardest")
    how = "as measured" if direction.decided else "as claimed; this run does not tell"
    what = {"vog_raw": "raw VoG", "vog_relative": "relative VoG"}.get(score, "VoG")
    return f" ({'highest' if high else 'lowest'} {what}, {how})"


def _name(scores: Scores, index: int) -> str:
    if index < 0:
        return "-"
    return scores.classes[index] if index < len(scores.classes) else str(index)


def _figure(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _left_out(count: int, most: int | None) -> str:
    if most is None or count <= most:
        return ""
    return f"\n  ... and {count - most:,} more classes (--all-classes lists them)"
