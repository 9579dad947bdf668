"""``vogcore score``: checkpoints and examples in, score file out."""

from __future__ import annotations

import argparse
import glob
import os
import re
from typing import Any

from vogcore.autodiff import OF
from vogcore.cli._parser import integer
from vogcore.errors import SettingsError
from vogcore.scoring.settings import CHANNELS, MOST_THREADS, NORMALISE, REDUCTIONS

__all__ = ["add_parser", "parse_bytes", "parse_stage", "refuse_same_file", "summary"]

_EXAMPLES = """\
examples:
  vogcore score --checkpoints 'ckpts/*.onnx' --data train.npz -o scores.h5
  vogcore score --checkpoints 'ckpts/*.onnx' --data x.npy --labels y.npy -o scores.h5
  vogcore score --checkpoints 'ckpts/*.onnx' --data images.h5 --scale 1/255 --mean 0.49,0.48,0.45 \\
      --std 0.25,0.24,0.26 --layout 'nhwc->nchw' -o scores.h5
  vogcore score --gradients gradients.h5 -o scores.h5
  vogcore score --checkpoints 'ckpts/*.onnx' --data test.npz --statistics scores.h5 -o test-scores.h5
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "score",
        help="score examples from checkpoints, or from gradients that are there already",
        description="Variance of gradients of every example over the checkpoints of a training run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    what = parser.add_argument_group("input and output")
    what.add_argument(
        "--checkpoints",
        nargs="+",
        metavar="ONNX",
        help="ONNX checkpoints: a quoted pattern, a folder, or paths; scored in the order of their recorded step, "
        "else of the numbers in their names",
    )
    what.add_argument(
        "--data",
        metavar="FILE",
        help="examples: .npz (x, y), .npy, HDF5 (x, y), .parquet, .zarr or a folder of images, read as needed",
    )
    what.add_argument("--labels", metavar="NPY", help="class indices, where the data file does not hold them")
    what.add_argument("--gradients", metavar="H5", help="score this gradient archive instead of checkpoints")
    what.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="H5",
        help="score file to write; what an interrupted run has finished is beside it, in H5.partial",
    )
    what.add_argument(
        "--overwrite", action="store_true", help="replace files that exist, and an unfinished run of something else"
    )
    what.add_argument("--keep-gradients", metavar="H5", help="also write all gradients to this archive")
    what.add_argument(
        "--keep-dtype",
        choices=("float32", "float16", "bfloat16"),
        metavar="TYPE",
        help="their type there: float32 (default), float16 or bfloat16",
    )
    what.add_argument(
        "--maps",
        metavar="N|NPY",
        help="also store per-pixel maps, in a second pass: of the N hardest examples, or of the positions in a file",
    )
    what.add_argument("--x-name", metavar="NAME", help="name of the examples in the data file")
    what.add_argument("--y-name", metavar="NAME", help="name of the labels in the data file")

    how = parser.add_argument_group(
        "from stored values to the model's input (what is not inside the graph; default: what the checkpoints record, "
        "--scale 1 for nothing)"
    )
    how.add_argument("--scale", metavar="FACTOR", help="multiply by, 1/255 for example")
    how.add_argument("--mean", metavar="M[,M...]", help="then subtract, one number or one for each channel")
    how.add_argument("--std", metavar="S[,S...]", help="then divide by")
    how.add_argument("--layout", metavar="FROM->TO", help="nhwc->nchw, nchw->nhwc, nhw->nchw, nhw->nhwc or flatten")

    score = parser.add_argument_group("the score (defaults: the paper's)")
    score.add_argument(
        "--of",
        default="logit",
        choices=OF,
        metavar="WHAT",
        help="what is differentiated: logit (default), probability, log-probability, loss, margin or centred-logit",
    )
    score.add_argument(
        "--target",
        default="label",
        metavar="label|predicted|INDEX",
        help="at which class: the label (default), the class that one checkpoint predicts, or a fixed one",
    )
    score.add_argument(
        "--target-checkpoint",
        type=integer(-(2**31), 2**31),
        metavar="N",
        help="which checkpoint predicts, for --target predicted (-1, the last)",
    )
    score.add_argument(
        "--channels",
        default="mean",
        choices=CHANNELS,
        metavar="HOW",
        help="per pixel: mean (signed, default), none, magnitude or l2",
    )
    score.add_argument(
        "--channel-axis",
        type=integer(-64, 64),
        metavar="AXIS",
        help="axis of the channels in the model's input (0 is the examples), where it is not clear",
    )
    score.add_argument(
        "--reduction",
        default="std",
        choices=REDUCTIONS,
        metavar="HOW",
        help="over the checkpoints: std (default) or var",
    )
    score.add_argument("--relative", action="store_true", help="divide raw VoG by the mean absolute gradient")
    score.add_argument(
        "--normalise",
        default="class",
        choices=NORMALISE,
        metavar="HOW",
        help="class (z-score inside the class, default), absolute (its magnitude), robust (by median and MAD) or none",
    )
    score.add_argument("--statistics", metavar="H5", help="score file whose class statistics to use")
    score.add_argument(
        "--stage",
        action="append",
        metavar="NAME=WINDOW",
        help="checkpoints of a stage, as 0:4 or 0,2,5; repeat for several (default: early, middle and late thirds from "
        "six checkpoints on)",
    )
    score.add_argument(
        "--wrt",
        metavar="NAME",
        help="float tensor of the model to differentiate with respect to (default: as recorded, else the input)",
    )
    score.add_argument("--output-name", metavar="NAME", help="output of the model with the class scores")

    machine = parser.add_argument_group("the machine")
    machine.add_argument(
        "--provider",
        default="auto",
        choices=("auto", "cpu", "cuda"),
        metavar="NAME",
        help="auto (CUDA where it works, else CPU; default), cpu or cuda",
    )
    machine.add_argument(
        "--threads", type=integer(1, MOST_THREADS), metavar="N", help="threads of ONNX Runtime and of the kernels"
    )
    machine.add_argument("--batch-size", type=integer(1), metavar="N", help="examples in one run of a model")
    machine.add_argument("--memory", default="1GB", metavar="SIZE", help="for the moments of a block of examples (1GB)")
    machine.add_argument("-q", "--quiet", action="store_true", help="no progress")


def run(options: argparse.Namespace) -> int:
    """Score, and say where the result is."""
    import vogcore
    from vogcore.scoring.progress import ProgressBar, Silent

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
    print(summary(scores, options.output))
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
