"""``vogcore report``: a score file as one HTML page, with the examples where they are given."""

from __future__ import annotations

import argparse
import os
import warnings
from typing import Any

from vogcore.cli._json import add_json_option, print_json
from vogcore.cli._parser import add_command, integer
from vogcore.cli.score import refuse_same_file
from vogcore.errors import SettingsError, VogcoreWarning
from vogcore.store.schema import ALL

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "report",
        run,
        summary="write a score file as one HTML page with charts, tables and examples",
        description="Write one HTML file, which needs no network, with what a score file says: which end of each\n"
        "score is hard on this run, errors by decile, classes, and the lowest and highest examples of each\n"
        "class where the data are given. Needs the extra report.",
        examples=[
            "vogcore report scores.h5 -o report.html",
            "vogcore report scores.h5 --data train.npz -o report.html",
            "vogcore report scores.h5 --data x.npy --labels y.npy --score vog_relative --stage late -o report.html",
            "vogcore report scores.h5 --data tokens.npz --vocabulary vocab.txt -o report.html",
        ],
    )
    parser.add_argument("scores", metavar="H5", help="score file")
    parser.add_argument("-o", "--output", required=True, metavar="HTML", help="page to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    parser.add_argument("--stage", default=ALL, help="which stage examples are chosen by (all)")
    parser.add_argument(
        "--score", default="vog", metavar="NAME", help="by which of its scores: vog (default), vog_raw or vog_relative"
    )
    parser.add_argument(
        "--images",
        type=integer(0, 1000),
        default=6,
        metavar="N",
        help="examples at each end of the score in each class, 0 for none (6)",
    )
    parser.add_argument(
        "--classes",
        type=integer(1, 1000),
        default=20,
        metavar="N",
        help="classes with examples, those with the highest error rate where there are more (20)",
    )
    parser.add_argument("--title", help="title of the page")
    add_json_option(parser)
    data = parser.add_argument_group("the examples that were scored")
    data.add_argument("--data", metavar="FILE", help="the data as given to vogcore score; left out, none are shown")
    data.add_argument("--labels", metavar="NPY", help="class indices, where the data file does not hold them")
    data.add_argument("--x-name", metavar="NAME", help="name of the examples in the data file")
    data.add_argument("--y-name", metavar="NAME", help="name of the labels in the data file")
    data.add_argument(
        "--vocabulary", metavar="TXT", help="text of the tokens, one a line, for data that are token numbers"
    )
    data.add_argument(
        "--image-layout", metavar="AXES", help="axes of an image as the model gets it, where not clear: hw, hwc or chw"
    )
    how = parser.add_argument_group("from stored values to the model's input (default: as the score file records it)")
    how.add_argument("--scale", metavar="FACTOR", help="multiply by, 1/255 for example")
    how.add_argument("--mean", metavar="M[,M...]", help="then subtract; taken back where images are shown")
    how.add_argument("--std", metavar="S[,S...]", help="then divide by; likewise")
    how.add_argument("--layout", metavar="FROM->TO", help="nhwc->nchw, nchw->nhwc, nhw->nchw, nhw->nhwc or flatten")


def run(options: argparse.Namespace) -> int:
    """Write the page, and say where it is and what it misses."""
    from vogcore.cli._text import printable
    from vogcore.data import Preprocess
    from vogcore.report import write_report
    from vogcore.report.data import read_vocabulary

    refuse_same_file(options.output, [options.scores, options.data, options.labels, options.vocabulary])
    names = ("labels", "x_name", "y_name", "vocabulary", "image_layout", "scale", "mean", "std", "layout")
    if options.data is None:
        for name in names:
            if getattr(options, name) is not None:
                flag = "--" + name.replace("_", "-")
                raise SettingsError(f"{flag} has a meaning with --data only; leave it out, or give the data.")
    missing = write_report(
        options.scores,
        options.output,
        options.data,
        stage=options.stage,
        score=options.score,
        images=options.images,
        classes=options.classes,
        layout=options.image_layout,
        vocabulary=None if options.vocabulary is None else read_vocabulary(options.vocabulary),
        title=options.title,
        overwrite=options.overwrite,
        labels=options.labels,
        x_name=options.x_name,
        y_name=options.y_name,
        preprocess=Preprocess.parse(options.scale, options.mean, options.std, options.layout),
    )
    for sentence in missing:
        warnings.warn(sentence, VogcoreWarning, stacklevel=1)
    if options.json:
        size = os.path.getsize(options.output)
        print_json("report", {"scores": options.scores, "output": options.output, "bytes": size, "missing": missing})
    else:
        print(f"The report is in {printable(options.output)}; open it in a browser.")
    return 0
