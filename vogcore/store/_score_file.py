"""Scores to and from HDF5: the format ``vogcore.scores``."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

import h5py
import numpy as np

from vogcore.errors import StoreError
from vogcore.store._hdf5 import Reader, file_image, to_json, write_header
from vogcore.store._tables import (
    fit,
    fit_ids,
    read_checkpoints,
    read_classes,
    read_labels,
    write_checkpoints,
    write_classes,
    write_examples,
)
from vogcore.store.maps import read_maps, write_maps
from vogcore.store.schema import ALL, EASIER, HARDER, MEASURED, SCORE_NAMES, SCORES_FORMAT
from vogcore.store.scores import Companion, Direction, Scores, StageScores

__all__ = ["read_scores", "to_image"]

_MEASURES = [f.name for f in fields(Direction) if f.name not in ("claimed", "measured")]
_COMPANION_TYPES = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1")


def to_image(scores: Scores) -> memoryview:
    """The bytes of the score file, built in memory.

    Raises:
        StoreError: the arrays do not fit together, or a name cannot be written.
    """
    return file_image(lambda file: _write(file, scores))


def _write(file: h5py.File, scores: Scores) -> None:
    n, k, c = len(scores.labels), len(scores.checkpoints), len(scores.classes)
    write_header(file, SCORES_FORMAT, scores.vogcore_version, scores.created, scores.settings)
    file.attrs["warnings"] = to_json(list(scores.warnings))
    file.attrs["timings"] = to_json(scores.timings)
    labels = fit("examples/label", scores.labels, "<i8", (n,))
    if np.any((labels < -1) | (labels >= c)):
        raise StoreError(f"Cannot write examples/label: a label is outside of -1 to {c - 1}; there are {c} classes.")
    write_examples(file, fit_ids(scores.ids, n), labels)
    write_checkpoints(file, scores.checkpoints)
    write_classes(file, scores.classes, fit("classes/count", scores.class_count, "<i8", (c,)))
    stages = file.create_group("scores", track_order=True)
    for name, stage in scores.stages.items():
        _write_stage(stages.create_group(_checked(name, "stage")), stage, n, k, c)
    companions = file.create_group("companions", track_order=True)
    for name, companion in scores.companions.items():
        values = np.asarray(companion.values)
        if f"{values.dtype.kind}{values.dtype.itemsize}" not in _COMPANION_TYPES:
            raise StoreError(
                f"Cannot write companions/{name}: its type is {values.dtype}, not a number or a truth value."
            )
        values = fit(f"companions/{name}", values, values.dtype.newbyteorder("<").str, (n,))
        dataset = companions.create_dataset(_checked(name, "companion"), data=values)
        dataset.attrs.update(direction=companion.direction, range=companion.range, source=companion.source)
    for name, dtype, array in (
        ("class", "<i4", scores.predictions_class),
        ("label_probability", "<f4", scores.predictions_label_probability),
    ):
        if array is not None:
            file[f"predictions/{name}"] = fit(f"predictions/{name}", array, dtype, (k, n))
    if scores.maps is not None:
        write_maps(file, scores.maps, n)


def _checked(name: str, what: str) -> str:
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise StoreError(f"Cannot write the {what} {name!r}: a name in a file must not be empty, '.' or hold a slash.")
    return name


def _write_stage(group: h5py.Group, stage: StageScores, n: int, k: int, c: int) -> None:
    window = np.asarray(stage.checkpoints)
    window = fit(f"the checkpoints of {group.name}", window, "<i8", (window.size,))
    if np.any((window < 0) | (window >= k)):
        raise StoreError(f"Cannot write {group.name[1:]}: a checkpoint is outside of 0 to {k - 1}.")
    for name, length in (
        ("vog_raw", n),
        ("vog", n),
        ("vog_relative", n),
        ("mean_abs_gradient", n),
        ("class_mean", c),
        ("class_std", c),
    ):
        values = getattr(stage, name)
        if values is None:
            continue
        dataset = group.create_dataset(name, data=fit(f"{group.name[1:]}/{name}", values, "<f8", (length,)))
        if name in SCORE_NAMES:
            direction = stage.direction(name)
            dataset.attrs["direction"] = direction.claimed
            dataset.attrs["measured_direction"] = direction.measured
            for measure in _MEASURES:
                dataset.attrs[measure] = getattr(direction, measure)
            dataset.attrs["normalise"] = stage.normalise if name == "vog" else "none"
            dataset.attrs["checkpoints"] = window


def read_scores(path: str | os.PathLike[str]) -> Scores:
    """Read and check a score file; see :func:`vogcore.store.scores.open_scores`."""
    reader = Reader(path, SCORES_FORMAT)
    try:
        return _read(reader)
    finally:
        reader.close()


def _read(reader: Reader) -> Scores:
    ids = reader.read_ids(None)
    n = len(ids)
    classes, class_count = read_classes(reader)
    checkpoints = read_checkpoints(reader)
    k, c = len(checkpoints), len(classes)
    stages = {name: _read_stage(reader, name, n, k, c) for name in reader.names("scores")}
    if ALL not in stages:
        raise reader.damaged("scores/all is missing")
    return Scores(
        stages=stages,
        labels=read_labels(reader, n, c),
        ids=ids,
        classes=classes,
        class_count=class_count,
        checkpoints=checkpoints,
        settings=reader.json_attribute("settings", dict),
        companions={name: _read_companion(reader, name, n) for name in reader.names("companions")},
        predictions_class=reader.read("predictions/class", "i4", (k, n), need=False),
        predictions_label_probability=reader.read("predictions/label_probability", "f4", (k, n), need=False),
        maps=read_maps(reader, n),
        warnings=reader.json_attribute("warnings", list, default=[]),
        timings=reader.json_attribute("timings", dict, default={}),
        created=reader.string_attribute(reader.file, "created"),
        vogcore_version=reader.string_attribute(reader.file, "vogcore_version"),
        path=os.fspath(reader.path),
    )


def _read_stage(reader: Reader, name: str, n: int, k: int, c: int) -> StageScores:
    where = f"scores/{name}"
    if reader.group(where) is None:
        raise reader.damaged(f"{where} is missing")
    arrays: dict[str, Any] = {
        "vog_raw": reader.read(f"{where}/vog_raw", "f8", (n,)),
        "vog": reader.read(f"{where}/vog", "f8", (n,)),
        "vog_relative": reader.read(f"{where}/vog_relative", "f8", (n,), need=False),
        "mean_abs_gradient": reader.read(f"{where}/mean_abs_gradient", "f8", (n,), need=False),
        "class_mean": reader.read(f"{where}/class_mean", "f8", (c,)),
        "class_std": reader.read(f"{where}/class_std", "f8", (c,)),
    }
    vog = reader.dataset(f"{where}/vog", ("f8",), (n,))
    window = reader.number_attribute(vog, "checkpoints", rank=1)
    if window.size and (window.dtype.kind not in "iu" or window.min() < 0 or window.max() >= k):
        raise reader.damaged(f"attribute checkpoints of {where}/vog names a checkpoint outside of 0 to {k - 1}")
    directions = {
        score: _read_direction(reader, f"{where}/{score}", n) for score in SCORE_NAMES if arrays[score] is not None
    }
    return StageScores(
        name=name,
        checkpoints=window.astype(np.int64),
        normalise=reader.string_attribute(vog, "normalise"),
        directions=directions,
        **arrays,
    )


def _read_direction(reader: Reader, path: str, n: int) -> Direction:
    node = reader.dataset(path, ("f8",), (n,))
    default = Direction()
    claimed = reader.string_attribute(node, "direction")
    measured = reader.string_attribute(node, "measured_direction", default.measured)
    if claimed not in (HARDER, EASIER) or measured not in MEASURED:
        raise reader.damaged(f"the direction of {path} is {claimed!r}, measured {measured!r}")
    measures = {name: reader.number_attribute(node, name, getattr(default, name)) for name in _MEASURES}
    return Direction(claimed=claimed, measured=measured, **measures)


def _read_companion(reader: Reader, name: str, n: int) -> Companion:
    path = f"companions/{name}"
    node = reader.dataset(path, _COMPANION_TYPES, (n,))
    values = reader.values(path, node)
    return Companion(
        values=values.astype(values.dtype.newbyteorder("="), copy=False),
        direction=reader.string_attribute(node, "direction"),
        range=reader.string_attribute(node, "range"),
        source=reader.string_attribute(node, "source"),
    )
