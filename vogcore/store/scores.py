"""The scores of a run in memory, and the functions that save and open them.

The data classes need NumPy alone; h5py is loaded when a file is written or read.
"""

from __future__ import annotations

import datetime
import operator
import os
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from vogcore._paths import check_output
from vogcore.errors import SettingsError
from vogcore.store.direction import Direction
from vogcore.store.schema import ALL, SCORE_NAMES

if TYPE_CHECKING:
    import pandas

    from vogcore.plots import Plots
    from vogcore.store.maps import Maps

__all__ = ["CheckpointInfo", "Companion", "Direction", "Scores", "StageScores", "check_output", "open_scores"]

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CheckpointInfo:
    """One checkpoint of a run.

    Attributes:
        name: what the user calls it: usually its file name.
        step: training step, >= 0, or None where not known.
        epoch: epoch, >= 0, or None where not known.
        sha256: hex SHA-256 of its weights, or "" where not known.

    Raises:
        SettingsError: step or epoch is negative.
    """

    name: str
    step: int | None = None
    epoch: int | None = None
    sha256: str = ""

    def __post_init__(self) -> None:
        for what, value in (("step", self.step), ("epoch", self.epoch)):
            if value is not None and value < 0:
                raise SettingsError(f"The {what} of checkpoint {self.name!r} must be 0 or more, not {value}.")


@dataclass(eq=False)
class Companion:
    """Another measure of the same examples, at the last checkpoint, e.g. ``"loss"`` or ``"correct"``.

    Attributes:
        values: (N,) of any float, integer or boolean type.
        direction: which end is hard, in words: ``"higher is harder"``, ``"lower is harder"``.
        range: the range of its values, in words: ``"[0, 1]"``.
        source: the paper or formula it comes from.
    """

    values: npt.NDArray
    direction: str
    range: str
    source: str


@dataclass(eq=False)
class StageScores:
    """The scores over one window of checkpoints.

    Attributes:
        name: ``"all"``, ``"early"``, ``"middle"``, ``"late"`` or the user's own.
        checkpoints: (k,) int64, indices of the checkpoints of this window.
        vog_raw: (N,) float64, before normalisation; >= 0.
        vog: (N,) float64, normalised as ``normalise`` says.
        vog_relative: (N,) float64, raw VoG over the mean absolute gradient, or None.
        mean_abs_gradient: (N,) float64, over the same checkpoints and pixels, or None.
        class_mean: (C,) float64, centre of ``vog_raw`` in each class, or that of the score file given as
            ``statistics``; NaN for an empty class.
        class_std: (C,) float64, spread likewise.
        normalise: how ``vog`` was made from ``vog_raw``: ``"class"``, ``"none"``, ``"absolute"``, ``"robust"``...
        directions: direction of each score, by its name: ``"vog"``, ``"vog_raw"``, ``"vog_relative"``. A score that
            is missing here has the default one: claimed higher is harder, not measured.
    """

    name: str
    checkpoints: Int64Array
    vog_raw: Float64Array
    vog: Float64Array
    vog_relative: Float64Array | None
    mean_abs_gradient: Float64Array | None
    class_mean: Float64Array
    class_std: Float64Array
    normalise: str
    directions: dict[str, Direction] = field(default_factory=dict)

    def direction(self, score: str = "vog") -> Direction:
        """Direction of one of the scores ``"vog"``, ``"vog_raw"``, ``"vog_relative"``.

        Raises:
            SettingsError: there is no score of that name.
        """
        if score not in SCORE_NAMES:
            raise SettingsError(f"There is no score {score!r}; choose one of {', '.join(SCORE_NAMES)}.")
        return self.directions.get(score, Direction())


def now() -> str:
    """The time in UTC, ISO 8601, as the files record it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def version() -> str:
    """The running version of vogcore, as the files record it."""
    import vogcore  # the root package is still being imported when this module is

    return vogcore.__version__


@dataclass(eq=False)
class Scores:
    """Everything a run found out about its examples, in the order of the data set.

    Lengths: N examples, K checkpoints, C classes.

    Attributes:
        stages: scores by window of checkpoints; ``"all"`` is always there.
        labels: (N,) int64 class index, -1 = none.
        ids: (N,) int64 or str.
        classes: C names in the order of the class index.
        class_count: (C,) int64, examples in each class.
        checkpoints: K checkpoints in the order of training.
        settings: every choice that decides the scores, as JSON can hold it.
        companions: other measures of the same examples, by name.
        predictions_class: (K, N) int32 predicted class, or None.
        predictions_label_probability: (K, N) float32 probability of the label, or None.
        maps: per-pixel VoG of chosen examples, or None.
        warnings: what a reader of the scores must know, one sentence each.
        timings: seconds (or rates), by name.
        created: UTC, ISO 8601.
        vogcore_version: version that computed the scores.
        path: where the scores were read from or saved to last, or None.
    """

    stages: dict[str, StageScores]
    labels: Int64Array
    ids: npt.NDArray
    classes: list[str]
    class_count: Int64Array
    checkpoints: list[CheckpointInfo]
    settings: dict[str, Any]
    companions: dict[str, Companion] = field(default_factory=dict)
    predictions_class: npt.NDArray[np.int32] | None = None
    predictions_label_probability: npt.NDArray[np.float32] | None = None
    maps: Maps | None = None
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    created: str = field(default_factory=now)
    vogcore_version: str = field(default_factory=version)
    path: str | None = None

    def __post_init__(self) -> None:
        if ALL not in self.stages:
            raise SettingsError(f'Scores need the stage "all"; these have {_names(self.stages)}.')

    def __len__(self) -> int:
        """Number of examples N."""
        return len(self.labels)

    @property
    def vog(self) -> Float64Array:
        """(N,) float64: normalised VoG over all checkpoints."""
        return self.stages[ALL].vog

    @property
    def vog_raw(self) -> Float64Array:
        """(N,) float64: VoG over all checkpoints, before normalisation."""
        return self.stages[ALL].vog_raw

    @property
    def direction(self) -> Direction:
        """Direction of :attr:`vog`."""
        return self.stages[ALL].direction()

    def stage(self, name: str) -> StageScores:
        """The scores of one window of checkpoints.

        Raises:
            SettingsError: there is no stage of that name.
        """
        try:
            return self.stages[name]
        except KeyError:
            raise SettingsError(f"There is no stage {name!r}; these scores have {_names(self.stages)}.") from None

    @overload
    def hardest(
        self, n: int, per_class: Literal[False] = False, stage: str = ALL, score: str = "vog"
    ) -> Int64Array: ...
    @overload
    def hardest(
        self, n: int, per_class: Literal[True], stage: str = ALL, score: str = "vog"
    ) -> dict[str, Int64Array]: ...
    def hardest(
        self, n: int, per_class: bool = False, stage: str = ALL, score: str = "vog"
    ) -> Int64Array | dict[str, Int64Array]:
        """Positions of the n hardest examples, hardest first, by one of the scores of a stage.

        The hard end is the one measured in the run where that is decided, else the claimed one. Ties keep the order
        of the data set; NaN scores come last.

        Args:
            n: how many; more than there are gives all.
            per_class: n of each class instead (by label), as a dict with one entry for each class name.
            stage: which window of checkpoints.
            score: ``"vog"`` (class-normalised), ``"vog_raw"`` or ``"vog_relative"``.

        Returns:
            int64 positions (m,), m <= n, or a dict of them.

        Raises:
            SettingsError: n is negative, there is no such stage or score, or per_class without labels or with two
                classes of one name.
        """
        direction = self.stage(stage).direction(score)
        return self._extreme(n, per_class, stage, score, high=direction.hard_is_high)

    @overload
    def easiest(
        self, n: int, per_class: Literal[False] = False, stage: str = ALL, score: str = "vog"
    ) -> Int64Array: ...
    @overload
    def easiest(
        self, n: int, per_class: Literal[True], stage: str = ALL, score: str = "vog"
    ) -> dict[str, Int64Array]: ...
    def easiest(
        self, n: int, per_class: bool = False, stage: str = ALL, score: str = "vog"
    ) -> Int64Array | dict[str, Int64Array]:
        """Positions of the n easiest examples, easiest first; otherwise as :meth:`hardest`."""
        direction = self.stage(stage).direction(score)
        return self._extreme(n, per_class, stage, score, high=not direction.hard_is_high)

    def _extreme(
        self, n: int, per_class: bool, stage: str, score: str, *, high: bool
    ) -> Int64Array | dict[str, Int64Array]:
        n = operator.index(n)
        if n < 0:
            raise SettingsError(f"The number of examples must be 0 or more, not {n}.")
        vog = getattr(self.stages[stage], score)
        if vog is None:
            raise SettingsError(f"Stage {stage!r} has no {score}; choose another score.")
        # A stable sort of the negated score keeps ties in order and NaN at the end, whichever end is asked for.
        order = np.argsort(-vog if high else vog, kind="stable").astype(np.int64, copy=False)
        if not per_class:
            return order[:n]
        if not np.any(self.labels >= 0):
            raise SettingsError("Examples cannot be chosen per class, because these scores have no labels.")
        if len(set(self.classes)) < len(self.classes):
            raise SettingsError("Examples cannot be chosen per class, because two classes have the same name.")
        labels = self.labels[order]
        return {name: order[labels == index][:n] for index, name in enumerate(self.classes)}

    def to_pandas(self) -> pandas.DataFrame:
        """The scores as a table with one row for each example; the index is the position in the data set.

        Columns: id, label, class (name, missing without a label), vog, vog_raw, vog_relative (where computed), the same
        for every other stage as <stage>_vog..., the companions under their names (with ``companion_`` in front where
        a column has that name already), predicted_class (name) at the last checkpoint.

        Raises:
            VogcoreError: pandas is not installed.
        """
        from vogcore.store.export import to_pandas

        return to_pandas(self)

    def to_csv(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the table of :meth:`to_pandas` as CSV (UTF-8, a header, ``position`` in front); needs no pandas.

        Floats read back to the same numbers; a missing name and NaN are empty.

        Raises:
            OutputExistsError: the file exists and ``overwrite`` is False.
            StoreError: the file cannot be written; nothing half-written is left.
        """
        from vogcore.store.export import to_csv

        to_csv(self, path, overwrite)

    def to_parquet(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the table of :meth:`to_pandas` as Parquet; settings and direction are in the metadata of its schema.

        Raises:
            VogcoreError: pyarrow is not installed.
            OutputExistsError: the file exists and ``overwrite`` is False.
            StoreError: the file cannot be written; nothing half-written is left.
        """
        from vogcore.store.export import to_parquet

        to_parquet(self, path, overwrite)

    @property
    def plot(self) -> Plots:
        """Plots by matplotlib (:class:`vogcore.plots.Plots`): deciles, distribution, grid, map, history.

        Raises:
            VogcoreError: a plot is asked for, and matplotlib is not installed.
        """
        # By name, since plots are a layer above this one: who only reads scores must not load them.
        plots: Plots = import_module("vogcore.plots").Plots(self)
        return plots

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the scores to one HDF5 file, whole or not at all, and remember the path.

        The file is built in memory, written under a temporary name in the same folder, synced to disk and renamed.

        Raises:
            OutputExistsError: the file exists and ``overwrite`` is False.
            StoreError: the folder is missing or not writable, the disk is full, or the arrays do not fit together.
        """
        from vogcore._paths import write_whole
        from vogcore.store._score_file import to_image

        check_output(path, overwrite)
        write_whole(path, to_image(self), overwrite)
        self.path = os.fspath(path)

    def _repr_html_(self) -> str:
        """What a notebook shows: summary, measured directions, hardest and easiest examples."""
        from vogcore.store.notebook import to_html

        return to_html(self)

    def __repr__(self) -> str:
        direction = self.direction
        hard = f"claimed {direction.claimed}, measured {direction.measured}"
        where = f", path={self.path!r}" if self.path else ""
        return (
            f"Scores({len(self)} examples, {len(self.checkpoints)} checkpoints, {len(self.classes)} classes, "
            f"stages {_names(self.stages)}; {hard}{where})"
        )


def _names(stages: dict[str, StageScores]) -> str:
    return ", ".join(stages) or "none"


def open_scores(path: str | os.PathLike[str]) -> Scores:
    """Read a score file, after checking that every part of it is there and has the right type and shape.

    Args:
        path: a file written by :meth:`Scores.save`, format ``vogcore.scores``, major version 1.

    Raises:
        StoreError: missing, not HDF5, truncated, not a score file, of a newer major version, or damaged.
    """
    from vogcore.store._score_file import read_scores

    return read_scores(path)
