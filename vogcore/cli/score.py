"""``vogcore score``: checkpoints and examples in, score file out."""

from __future__ import annotations

import argparse
import glob
import os
import re
from typing import Any

from vogcore.cli._config import as_toml
from vogcore.cli._json import print_json
from vogcore.cli._parser import add_command
from vogcore.cli._score_options import add_score_options
from vogcore.cli._style import say
from vogcore.errors import SettingsError

__all__ = ["add_parser", "parse_bytes", "parse_stage", "refuse_same_file", "summary", "summary_data"]

_EXAMPLES = """\
vogcore score --checkpoints 'ckpts/*.onnx' --data train.npz -o scores.h5
vogcore score --checkpoints 'ckpts/*.onnx' --data x.npy --labels y.npy -o scores.h5
vogcore score --checkpoints 'ckpts/*.onnx' --data images.h5 --scale 1/255 --mean 0.49,0.48,0.45 \\
    --std 0.25,0.24,0.26 --layout 'nhwc->nchw' -o scores.h5
vogcore score --gradients gradients.h5 -o scores.h5
vogcore score --checkpoints 'ckpts/*.onnx' --data test.npz --statistics scores.h5 -o test-scores.h5
vogcore score --config run.toml --of loss -o loss.h5
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "score",
        run,
        summary="score examples from checkpoints, or from gradients that are there already",
        description="Variance of gradients of every example over the checkpoints of a training run.",
        examples=_EXAMPLES.splitlines(),
    )
    add_score_options(parser)


def run(options: argparse.Namespace) -> int:
    """Score, and say where the result is."""
    import vogcore
    from vogcore.scoring.progress import ProgressBar, Silent

    if options.print_config:
        print(as_toml(options), end="")
        return 0
    stages = _stages(options.stage)
    memory = parse_bytes(options.memory)
    _refuse_useless(options)
    inputs = [options.data, options.labels, options.gradients, options.statistics]
    for pattern in options.checkpoints or []:
        in_folder = os.path.join(glob.escape(pattern), "*.onnx")
        inputs += [pattern, *glob.glob(pattern, recursive=True), *glob.glob(in_folder)]
    for output in (options.output, options.keep_gradients):
        refuse_same_file(output, inputs)
    if options.threads is not None:
        from vogcore.kernels import set_threads

        set_threads(options.threads)
    common: dict[str, Any] = {
        "out": options.output,
        "stages": stages,
        "channels": options.channels,
        "channel_axis": options.channel_axis,
        "reduction": options.reduction,
        "scale": "relative" if options.relative else "none",
        "normalise": options.normalise,
        "statistics": options.statistics,
        "maps": _maps(options.maps),
        "memory": memory,
        "overwrite": options.overwrite,
        "progress": Silent() if options.quiet else ProgressBar(),
    }
    if options.gradients is not None:
        _refuse_with_gradients(options)
        scores = vogcore.score_gradients(options.gradients, _labels(options.labels), **common)
    else:
        scores = _from_checkpoints(options, common)
    if options.json:
        print_json("score", summary_data(scores, options.output))
    else:
        say(summary(scores, options.output))
    return 0


def _from_checkpoints(options: argparse.Namespace, common: dict[str, Any]) -> Any:
    import vogcore
    from vogcore.data import Preprocess
    from vogcore.scoring.checkpoints import in_training_order

    if options.checkpoints is None or options.data is None:
        missing = "--checkpoints" if options.checkpoints is None else "--data"
        raise SettingsError(f"{missing} is missing; give --checkpoints and --data, or --gradients.")
    several = options.checkpoints
    return vogcore.score(
        several[0] if len(several) == 1 else in_training_order(several),
        options.data,
        options.labels,
        of=options.of,
        target=options.target if options.target in ("label", "predicted") else _class_index(options.target),
        target_checkpoint=-1 if options.target_checkpoint is None else options.target_checkpoint,
        preprocess=Preprocess.parse(options.scale, options.mean, options.std, options.layout),
        x_name=options.x_name,
        y_name=options.y_name,
        wrt=options.wrt,
        output=options.output_name,
        keep_gradients=options.keep_gradients,
        keep_dtype=options.keep_dtype or "float32",
        provider=options.provider,
        threads=options.threads,
        batch_size=options.batch_size,
        **common,
    )


def _refuse_with_gradients(options: argparse.Namespace) -> None:
    """Options that decide how gradients are computed mean nothing where they are there already."""
    for name in (
        "checkpoints", "data", "keep_gradients", "x_name", "y_name", "mean", "std", "layout", "wrt", "output_name",
        "scale", "batch_size",
    ):  # fmt: skip
        if getattr(options, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise SettingsError(f"--gradients and {flag} exclude each other; the gradients are computed already.")
    if options.of != "logit" or options.target != "label":
        raise SettingsError("--gradients excludes --of and --target; the gradients are computed already.")


def _refuse_useless(options: argparse.Namespace) -> None:
    """An option that would change nothing is a misunderstanding."""
    if options.target_checkpoint is not None and options.target != "predicted":
        raise SettingsError(
            "--target-checkpoint has a meaning with --target predicted only; leave it out, or add that."
        )
    if options.keep_dtype is not None and options.keep_gradients is None:
        raise SettingsError("--keep-dtype has a meaning with --keep-gradients only; leave it out, or add that.")


def refuse_same_file(output: str | None, inputs: list[str | None]) -> None:
    """``--overwrite`` is meant for results of an earlier run, never for what this run reads.

    Raises:
        SettingsError: the output is one of the inputs; those that do not exist are let through.
    """
    for path in inputs:
        if output and path and os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path):
            raise SettingsError(f"{output} is an input of this command and would be replaced; write to another file.")


def _labels(path: str | None) -> Any:
    if path is None:
        return None
    from vogcore.data.arrays import map_npy

    return map_npy(path)


def _maps(text: str | None) -> Any:
    if text is None or not re.fullmatch(r"\d{1,9}", text):
        return _labels(text)
    return int(text)


def _class_index(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise SettingsError(f"--target {text!r} is not known; give label, predicted or the index of a class.")
    return int(text)


def _stages(texts: list[str] | None) -> dict[str, slice | list[int]] | None:
    if not texts:
        return None
    stages = dict(parse_stage(text) for text in texts)
    if len(stages) < len(texts):
        raise SettingsError("--stage was given twice with the same name; name every stage once.")
    return stages


def parse_stage(text: str) -> tuple[str, slice | list[int]]:
    """``early=0:4`` or ``ends=0,1,11`` as a name and a slice or list of checkpoint indices.

    Raises:
        SettingsError: the text is neither.
    """
    name, separator, window = text.partition("=")
    if separator and re.fullmatch(r"(-?\d{1,9})?:(-?\d{1,9})?(:0{0,9}[1-9]\d{0,8})?", window):
        return name, slice(*(int(part) if part else None for part in window.split(":")))
    if separator and re.fullmatch(r"-?\d{1,9}(,-?\d{1,9})*", window):
        return name, [int(part) for part in window.split(",")]
    raise SettingsError(f"--stage {text!r} is not of the form NAME=START:STOP or NAME=INDEX,INDEX.")


def parse_bytes(text: str) -> int:
    """``512MB``, ``2GB``, ``1.5GiB`` or a number of bytes.

    Raises:
        SettingsError: the text is none of these.
    """
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if found is None or float(found[1]) <= 0:
        raise SettingsError(f"--memory {text!r} is not a size; write 512MB or 2GB.")
    base = 1024 if found[3] else 1000
    return max(int(float(found[1]) * base ** " KMGT".index(found[2].upper() or " ")), 1)


def _preprocess_line(made: dict[str, Any] | None) -> str:
    if not made:
        return ""
    return "Preprocessing: " + ", ".join(f"{name} {value}" for name, value in made.items() if value is not None) + "."


def summary_data(scores: Any, path: str | os.PathLike[str]) -> dict[str, Any]:
    """The same as JSON has it."""
    return {
        "output": os.fspath(path),
        "examples": len(scores),
        "checkpoints": [checkpoint.name for checkpoint in scores.checkpoints],
        "stages": {name: stage.checkpoints for name, stage in scores.stages.items()},
        "direction": scores.direction,
        "timings": scores.timings,
        "warnings": scores.warnings,
    }


def summary(scores: Any, path: str | os.PathLike[str]) -> str:
    """What to tell at the end of a run."""
    from vogcore.cli._text import direction_sentence, printable, quoted, timing_line

    name = os.fspath(path)
    lines = [
        f"{len(scores):,} examples scored over {len(scores.checkpoints)} checkpoints into {printable(name)}.",
        _preprocess_line(scores.settings.get("preprocess")),
        timing_line(scores.timings),
        direction_sentence(scores.direction),
        f"Look at it with: vogcore show {quoted(name)}",
    ]
    return "\n".join(line for line in lines if line)
