"""The options of ``vogcore score``."""

from __future__ import annotations

import argparse

from vogcore.autodiff import OF
from vogcore.cli._json import add_json_option
from vogcore.cli._parser import integer
from vogcore.scoring.settings import CHANNELS, MOST_THREADS, NORMALISE, REDUCTIONS

__all__ = ["add_score_options"]


def add_score_options(parser: argparse.ArgumentParser) -> None:
    """Add them to the command."""
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
        "--overwrite",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="replace files that exist, and an unfinished run of something else",
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
    score.add_argument(
        "--relative",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="divide raw VoG by the mean absolute gradient",
    )
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
    machine.add_argument(
        "-q", "--quiet", action=argparse.BooleanOptionalAction, default=False, help="no progress on standard error"
    )

    config = parser.add_argument_group("options in a file")
    config.add_argument(
        "--config",
        metavar="TOML",
        help="file with options, named as above without the dashes (docs/command-line.md); the command line wins",
    )
    config.add_argument(
        "--print-config", action="store_true", help="print the options in force as such a file, and score nothing"
    )
    add_json_option(parser)
