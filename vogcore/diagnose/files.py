"""What a file is: any of those that vogcore writes, and the ONNX models that it reads."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import onnx

from vogcore._checkpoint import CLASS_NAMES_KEY, EPOCH_KEY, PREPROCESS_KEY, STEP_KEY, VERSION_KEY, WRT_KEY
from vogcore._paths import reason
from vogcore.errors import ModelError, StoreError
from vogcore.graph.load import load_model, weights_digest
from vogcore.store.overview import FileReport, archive_report, format_of, score_report
from vogcore.store.overview_runs import JOURNAL_FORMAT, journal_report, live_file_report, live_report
from vogcore.store.schema import GRADIENTS_FORMAT, SCORES_FORMAT

__all__ = ["inspect_file"]

_HDF5 = b"\x89HDF\r\n\x1a\n"


def inspect_file(path: str | os.PathLike[str], *, verify: bool = False) -> FileReport:
    """Say what a file is, how large, whether it is complete and how it was made; nothing is changed or claimed.

    Args:
        path: a score file, a gradient archive (complete or ``.partial``), the journal of a score run (``.partial``),
            the folder of a live run or one of its files, or an ONNX model.
        verify: read everything and compare it with the digests that the file holds.

    Raises:
        StoreError: it is none of these, or damaged so that it cannot be read at all.
    """
    target = Path(path)
    if target.is_dir():
        return live_report(path, verify=verify)
    try:
        with open(target, "rb") as file:
            head = file.read(len(JOURNAL_FORMAT))
    except FileNotFoundError:
        raise StoreError(f"Cannot open {target}: there is no such file.") from None
    except OSError as error:
        raise StoreError(f"Cannot open {target}: {reason(error)}.") from error
    if head == JOURNAL_FORMAT.encode():
        return journal_report(path)
    if head.startswith(_HDF5):
        return _hdf5_report(path, verify)
    return _model_report(target)


def _hdf5_report(path: str | os.PathLike[str], verify: bool) -> FileReport:
    kind = format_of(path)
    if kind == SCORES_FORMAT:
        return score_report(path)
    if kind == GRADIENTS_FORMAT:
        return archive_report(path, verify=verify)
    return live_file_report(path)


def _model_report(path: Path) -> FileReport:
    try:
        model = load_model(path)
    except ModelError:
        if path.suffix.lower() == ".onnx":
            raise
        raise StoreError(
            f"{path} is none of the files that vogcore writes, nor an ONNX model; give a score file, a gradient "
            "archive, an unfinished run, the folder of a live run or a model."
        ) from None
    props = {entry.key: entry.value for entry in model.metadata_props}
    graph = model.graph
    facts: dict[str, Any] = {
        "step": _json(props.get(STEP_KEY)),
        "epoch": _json(props.get(EPOCH_KEY)),
        "class_names": _json(props.get(CLASS_NAMES_KEY)),
        "preprocess": _json(props.get(PREPROCESS_KEY)),
        "wrt": props.get(WRT_KEY),
        "sha256": weights_digest(model),
        "ir_version": model.ir_version,
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "producer": " ".join(part for part in (model.producer_name, model.producer_version) if part),
        "nodes": len(graph.node),
        "weights": sum(math.prod(tensor.dims) for tensor in graph.initializer),
        "inputs": {value.name: _type(value) for value in graph.input},
        "outputs": {value.name: _type(value) for value in graph.output},
        "metadata": {key: value for key, value in props.items() if not key.startswith("vogcore.")},
    }
    ours = any(facts[key] is not None for key in ("step", "epoch", "class_names"))
    notes = () if ours else ("It records no step, epoch or class names; checkpoints are then ordered by their names.",)
    return FileReport(
        path=str(path),
        kind="ONNX checkpoint" if ours else "ONNX model",
        format="onnx",
        format_version=str(model.ir_version),
        bytes=path.stat().st_size,
        vogcore_version=props.get(VERSION_KEY, ""),
        facts=facts,
        verified=True,
        notes=notes,
    )


def _json(text: str | None) -> Any:
    """What an entry of the metadata holds, which somebody else may have written."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text


def _type(value: onnx.ValueInfoProto) -> str:
    tensor, types = value.type.tensor_type, onnx.TensorProto.DataType
    # A number that this version of onnx does not know has no name.
    name = types.Name(tensor.elem_type).lower() if tensor.elem_type in types.values() else str(tensor.elem_type)
    if not tensor.HasField("shape"):
        return f"{name} of unknown shape"
    shape = [str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]
    return f"{name} ({', '.join(shape)})"
