"""From raw scores of all examples to a :class:`Scores`: class normalisation, directions, warnings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vogcore import kernels
from vogcore.errors import VogcoreWarning
from vogcore.scoring.direction import measure_direction
from vogcore.scoring.moments import RawScores
from vogcore.scoring.settings import Settings
from vogcore.scoring.stored import require_statistics
from vogcore.store import CheckpointInfo, Companion, Scores, StageScores
from vogcore.store.schema import ALL

__all__ = ["Notes", "Run", "assemble"]

_NAMED = 10
"""How many classes or examples a warning names before it only counts them."""
_ROUNDING = 16
"""A spread below this many units in the last place of the gradients is rounding, not difference."""
_EPS32 = 2.0**-23


class Notes(Protocol):
    """What the logits say of N examples over K checkpoints."""

    predicted: npt.NDArray[np.int32]
    """(K, N) predicted class."""
    probability: npt.NDArray[np.float32] | None
    """(K, N) probability of the label, or None without labels."""

    def companions(self) -> dict[str, Companion]:
        """The companion metrics of a score file."""


@dataclass
class Run:
    """Everything a pass over the gradients collected."""

    labels: npt.NDArray[np.int64]
    """Label of every example (N,), -1 = none."""
    groups: npt.NDArray[np.int64]
    """Class that every example is normalised in: its label, or its target class where there are no labels."""
    ids: npt.NDArray
    classes: list[str]
    checkpoints: list[CheckpointInfo]
    stages: Mapping[str, npt.NDArray[np.int64]]
    raw: dict[str, RawScores]
    eps: float
    """Unit in the last place of the gradients' type."""
    targets: npt.NDArray[np.int64] | None = None
    """Class at which the gradient of every example was taken (N,), where that is known."""
    logits: Notes | None = None
    """What the logits say, where there were some."""
    relative: Mapping[str, npt.NDArray[np.float64]] | None = None
    """Raw VoG over the mean absolute gradient, by stage, where that is known better than as their quotient."""
    warnings: list[str] = field(default_factory=list)
    """What has been warned of already."""
    timings: dict[str, float] = field(default_factory=dict)


def assemble(
    run: Run, settings: Settings, record: dict[str, Any], stored: Scores | None, *, level: int | None = 4
) -> Scores:
    """Normalise, measure and warn.

    Args:
        run: raw scores and what goes with them.
        settings: how to normalise.
        record: the settings as the file records them.
        stored: scores whose class statistics are used, already found to fit, or None for the run's own.
        level: ``stacklevel`` of the warnings, or None for no warning; they are in the scores in any case.

    Raises:
        SettingsError: the stored statistics lack a class.
    """
    n_classes = len(run.classes)
    companions = run.logits.companions() if run.logits is not None else {}
    loss, correct = (companions[name].values if name in companions else None for name in ("loss", "correct"))
    if stored is not None:
        require_statistics(stored, settings, run.groups)
    flat: dict[str, npt.NDArray[np.bool_]] = {}
    stages = {}
    for name, indices in run.stages.items():
        raw = run.raw[name]
        if run.relative is not None:
            relative = run.relative[name]
        else:
            relative = np.divide(raw.vog, raw.magnitude, out=np.zeros_like(raw.vog), where=raw.magnitude > 0)
        score = relative if settings.scale == "relative" else raw.vog
        if stored is not None:
            mean, std = stored.stage(name).class_mean, stored.stage(name).class_std
        else:
            statistics = kernels.robust_statistics if settings.normalise == "robust" else kernels.class_statistics
            result = statistics(score, run.groups, n_classes)
            mean, std = result.mean, result.std
        flat[name] = std <= _rounding(raw, run.groups, run, settings)
        if settings.normalise == "none":
            vog = score.copy()
        else:
            vog = kernels.normalise(
                score, run.groups, mean, std, absolute=settings.normalise == "absolute", zero_spread=flat[name]
            )
        directions = {}
        if loss is not None and correct is not None and np.isfinite(loss).any():
            for key, values in (("vog", vog), ("vog_raw", score), ("vog_relative", relative)):
                directions[key] = measure_direction(values, loss, correct)
        stages[name] = StageScores(
            name=name,
            checkpoints=indices,
            vog_raw=score,
            vog=vog,
            vog_relative=relative,
            mean_abs_gradient=raw.magnitude,
            class_mean=mean,
            class_std=std,
            normalise=settings.normalise,
            directions=directions,
        )
    count = np.bincount(run.groups[run.groups >= 0], minlength=n_classes).astype(np.int64)
    notes = _warnings(run, settings, {name: stage.vog_raw for name, stage in stages.items()}, count, flat, stored)
    if level is not None:
        for note in notes:
            warnings.warn(note, VogcoreWarning, stacklevel=level)
    return Scores(
        stages=stages,
        labels=run.labels,
        ids=run.ids,
        classes=run.classes,
        class_count=count,
        checkpoints=run.checkpoints,
        settings={**record, "eps": run.eps},  # without which a merge could not tell what is rounding
        companions=companions,
        predictions_class=run.logits.predicted if run.logits is not None else None,
        predictions_label_probability=run.logits.probability if run.logits is not None else None,
        warnings=list(run.warnings) + notes,
        timings=run.timings,
    )


def _rounding(raw: RawScores, groups: npt.NDArray[np.int64], run: Run, settings: Settings) -> npt.NDArray[np.float64]:
    """Spread per class that rounding of the gradients alone can produce, in the unit of the score."""
    n_classes = len(run.classes)
    magnitude = kernels.class_statistics(raw.magnitude, groups, n_classes).mean
    # Storing rounds once, computing many times: 16 units of bfloat16 would swallow real differences.
    unit = _ROUNDING * run.eps if run.eps <= _EPS32 else max(_ROUNDING * _EPS32, run.eps)
    noise = unit * magnitude
    if settings.reduction == "var":
        # d(s²) = 2 s ds
        noise = noise * 2 * np.sqrt(kernels.class_statistics(raw.vog, groups, n_classes).mean)
    if settings.scale == "relative":
        noise = np.divide(noise, magnitude, out=np.zeros_like(noise), where=magnitude > 0)
    return np.nan_to_num(noise)


def _warnings(
    run: Run,
    settings: Settings,
    scores: Mapping[str, npt.NDArray[np.float64]],
    count: npt.NDArray,
    flat: Mapping[str, npt.NDArray[np.bool_]],
    stored: Scores | None,
) -> list[str]:
    if not np.any(run.raw[ALL].vog):
        return [
            "No gradient changes between the checkpoints, so every raw score is zero and the scores mean nothing; "
            "check that the checkpoints really differ."
        ]
    notes = []
    if _is_linear(run, settings, scores[ALL]):
        notes.append(
            "All examples of a class have the same gradient, as in a model that is linear in its input, so raw scores "
            "do not differ inside a class and the class-normalised ones are all zero: this score says nothing here."
        )
    unlabelled = int((run.groups < 0).sum())
    if unlabelled and settings.normalise != "none":
        notes.append(f"{unlabelled} of {len(run.groups)} examples have no label, so their normalised score is NaN.")
    if notes or settings.normalise == "none":
        return notes
    single = [run.classes[c] for c in np.flatnonzero(count == 1)]
    if single and stored is None:
        notes.append(f"{_these(single)} one example only, whose normalised score is 0 by convention.")
    # A class of one example has no spread either, unless the spread comes from elsewhere.
    counted = count > (1 if stored is None else 0)
    for stage, mask in flat.items():
        equal = [run.classes[c] for c in np.flatnonzero(mask & counted)]
        if equal:
            what = "median absolute deviation" if settings.normalise == "robust" else "spread"
            source = "" if stored is None else " in the stored statistics"
            where = "" if stage == ALL else f" at stage {stage!r}"
            notes.append(f"{_these(equal)} no {what} of raw scores{source}{where}, so the normalised ones are 0 there.")
    return notes


def _is_linear(run: Run, settings: Settings, score: npt.NDArray[np.float64]) -> bool:
    """Whether the score depends on nothing but the class at which the gradient was taken."""
    groups = run.groups if run.targets is None else run.targets
    statistics = kernels.class_statistics(score, groups, len(run.classes))
    several = statistics.count > 1
    if not several.any():
        return False
    return bool((statistics.std <= _rounding(run.raw[ALL], groups, run, settings))[several].all())


def _these(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"Class {shown} has" if len(names) == 1 else f"Classes {shown}{more} have"
