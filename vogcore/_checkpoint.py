"""How a checkpoint is written: whole or not at all, with the metadata that scoring reads back.

The embedded demo and the framework adapters share this module, so that every checkpoint that vogcore writes has the
same entries of ``metadata_props``:

==========================  ================================================================================
``vogcore.step``            number of optimiser steps taken, as decimal digits
``vogcore.epoch``           number of epochs completed, as decimal digits
``vogcore.class_names``     JSON list of strings, in the order of the logits
``vogcore.preprocess``      JSON object, the fields of :class:`vogcore.data.Preprocess`
``vogcore.input_values``    name of the value that gradients are taken of, where the input is integers
``vogcore.version``         version of vogcore that wrote the checkpoint
==========================  ================================================================================
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vogcore import __version__
from vogcore._paths import write_whole
from vogcore.errors import ModelError, SettingsError

__all__ = [
    "CLASS_NAMES_KEY",
    "EPOCH_KEY",
    "PREPROCESS_KEY",
    "STEP_KEY",
    "VERSION_KEY",
    "WRT_KEY",
    "checkpoint_metadata",
    "save_checkpoint",
]

STEP_KEY = "vogcore.step"
EPOCH_KEY = "vogcore.epoch"
CLASS_NAMES_KEY = "vogcore.class_names"
PREPROCESS_KEY = "vogcore.preprocess"
VERSION_KEY = "vogcore.version"
WRT_KEY = "vogcore.input_values"


def checkpoint_metadata(
    step: int | None = None,
    epoch: int | None = None,
    class_names: Sequence[str] | None = None,
    preprocess: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Entries of ``metadata_props`` for a checkpoint, the version among them; what is None is left out.

    Args:
        step: optimiser steps taken.
        epoch: epochs completed.
        class_names: in the order of the logits.
        preprocess: as ``vogcore.data.Preprocess.to_dict`` gives it.

    Raises:
        SettingsError: ``step`` or ``epoch`` is negative or not an integer, or a class name is not a string.
    """
    metadata = {VERSION_KEY: __version__}
    for key, name, value in ((STEP_KEY, "step", step), (EPOCH_KEY, "epoch", epoch)):
        if value is None:
            continue
        if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
            raise SettingsError(f"{name} of a checkpoint must be an integer of at least 0, not {value!r}.")
        metadata[key] = str(int(value))
    if class_names is not None:
        if isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names):
            raise SettingsError("class_names must be a list of strings, one for each logit.")
        metadata[CLASS_NAMES_KEY] = json.dumps(list(class_names), ensure_ascii=False)
    if preprocess is not None:
        metadata[PREPROCESS_KEY] = json.dumps(dict(preprocess))
    return metadata


def save_checkpoint(model: Any, path: str | os.PathLike[str], metadata: dict[str, str]) -> Path:
    """Write an ``onnx.ModelProto`` with its weights inside, under its final name only when it is complete.

    Args:
        model: the ``onnx.ModelProto``; its ``metadata_props`` of the same keys are replaced.
        path: file to write; an existing one is replaced.
        metadata: as :func:`checkpoint_metadata` makes it.

    Returns:
        The path written.

    Raises:
        ModelError: the model is larger than the 2 GiB that one protobuf file can hold.
        StoreError: the file cannot be written.
    """
    path = Path(path)
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key not in metadata]
    del model.metadata_props[:]
    for key, value in [*kept, *metadata.items()]:
        model.metadata_props.add(key=key, value=value)
    try:
        image = model.SerializeToString(deterministic=True)
    except Exception as error:  # which class it is depends on protobuf's implementation
        raise ModelError(
            f"The checkpoint {path.name} cannot be written as one ONNX file (protobuf holds at most 2 GiB): {error}"
        ) from error
    write_whole(path, image, overwrite=True)
    return path
