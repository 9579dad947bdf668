"""The options that say which gradient: of what, with respect to what, at which class."""

from __future__ import annotations

import argparse
from typing import Any

from vogcore.autodiff import LOWERINGS, OF, OUTPUT

__all__ = ["add_gradient_options", "gradient_options"]


def add_gradient_options(parser: argparse.ArgumentParser) -> None:
    """Add them to a command."""
    parser.add_argument(
        "--of",
        default="logit",
        choices=(*OF, OUTPUT),
        metavar="WHAT",
        help="what is differentiated: logit (default), probability, log-probability, loss, margin, centred-logit, or "
        "output (an output of any model as it is, such as a regression)",
    )
    parser.add_argument(
        "--target",
        type=_target,
        metavar="CLASS",
        help="at which class: input (default: that of the input vogcore_target), predicted, or an index counted from "
        "0; with --of output a column, or sum (default)",
    )
    parser.add_argument("--wrt", metavar="NAME", help="float tensor to differentiate with respect to (the only input)")
    parser.add_argument("--output-name", metavar="NAME", help="output with the class scores, where there are several")
    parser.add_argument(
        "--lowering",
        default="cpu",
        choices=LOWERINGS,
        metavar="PROVIDER",
        help="provider that the gradient graph is formulated for: cpu (default) or cuda; the values are the same",
    )
    parser.add_argument(
        "--straight-through",
        action="store_true",
        help="pass gradients through quantisation as if it did not round",
    )


def gradient_options(options: argparse.Namespace) -> dict[str, Any]:
    """Them as keywords of :func:`vogcore.gradient_model`."""
    return {
        "of": options.of,
        "wrt": options.wrt,
        "output": options.output_name,
        "target": options.target,
        "lowering": options.lowering,
        "straight_through": options.straight_through,
    }


def _target(word: str) -> str | int:
    if word in ("input", "predicted", "sum"):
        return word
    if word.isdecimal():
        return int(word)
    raise argparse.ArgumentTypeError(f"{word[:40]!r} is not input, predicted, sum or an index counted from 0")
