"""``vogcore check-model``: can a model be differentiated, and is its gradient right?"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vogcore.cli._gradient_options import add_gradient_options, gradient_options
from vogcore.cli._json import add_json_option, print_json
from vogcore.cli._parser import add_command, integer
from vogcore.cli._style import say

if TYPE_CHECKING:
    from vogcore.diagnose import ModelReport, Tensor

__all__ = ["add_parser"]

_MOST_VALUES = 12
_MOST_NAMES = 4


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "check-model",
        run,
        summary="say whether a model can be differentiated, and whether its gradient is right",
        description="Prints what is in the way of a gradient, or compares the gradient graph with finite\n"
        "differences of the model on random input.",
        examples=[
            "vogcore check-model model.onnx",
            "vogcore check-model model.onnx --of loss --shape image=4,3,32,32",
            "vogcore check-model model.onnx --json",
        ],
        own_statuses={
            0: "the gradient could be made and agrees with finite differences",
            1: "it could not be made, does not agree, or could not be compared",
            2: "the model cannot be read, or an option cannot be understood",
        },
    )
    parser.add_argument("model", metavar="ONNX", help="forward model")
    add_gradient_options(parser)
    parser.add_argument("--nodes", action="store_true", help="list every node on the path, not only their number")
    add_json_option(parser)
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        type=_shape,
        metavar="NAME=N,N,...",
        help="shape of an input in the comparison, where the model leaves sizes open (can be given several times)",
    )
    parser.add_argument("--seed", type=integer(0), default=0, metavar="N", help="of the random input (0)")
    parser.add_argument("--threads", type=integer(1), metavar="N", help="threads for ONNX Runtime (all CPUs)")


def run(options: argparse.Namespace) -> int:
    """Check and print."""
    import vogcore

    report = vogcore.check_model(
        options.model,
        **gradient_options(options),
        shapes=dict(options.shape),
        seed=options.seed,
        threads=options.threads,
    )
    if options.json:
        print_json("check-model", report.to_dict())
    else:
        say(text(report, nodes=options.nodes))
    return 0 if report.ok else 1


def text(report: ModelReport, *, nodes: bool = False) -> str:
    """The report for a terminal."""
    from vogcore.cli._text import printable, wrap

    blocks = [f"{printable(report.model)}\n{_facts(report)}", _values(report)]
    if report.scores is not None:
        blocks.append(wrap(_scores(report)))
    if report.path:
        blocks.append(_path(report, nodes))
    if report.problems:
        blocks.append(_problems(report))
    if report.candidates:
        blocks.append(_candidates(report))
    if report.gradient_nodes is not None:
        blocks.append(_comparison(report))
    blocks.append(wrap(verdict(report)))
    return "\n\n".join(blocks)


def verdict(report: ModelReport) -> str:
    """What it comes to, in one sentence."""
    check = report.self_check
    if report.refusal is not None:
        return f"NO GRADIENT: {report.refusal}"
    if check.verdict == "agrees":
        return "OK: the model can be differentiated, and its gradient agrees with finite differences."
    if check.verdict == "disagrees":
        return f"WRONG: {check.reason} Please report this with the model."
    return f"NOT CONFIRMED: the gradient graph was made. {check.reason}"


def _facts(report: ModelReport) -> str:
    from vogcore.cli._text import bytes_in_words, printable

    opsets = ", ".join(f"{'opset' if name == 'ai.onnx' else name} {number}" for name, number in report.opsets.items())
    lines = [f"  {bytes_in_words(report.bytes)}, {opsets}, {report.nodes:,} nodes"]
    if report.weights:
        lines[0] += f", {report.weights:,} weights ({bytes_in_words(report.weight_bytes)})"
    if report.producer:
        lines.append(f"  made by {printable(report.producer)}")
    return "\n".join(lines)


def _values(report: ModelReport) -> str:
    from vogcore.cli._text import table

    rows = []
    for kind, values in (("input", report.inputs), ("output", report.outputs)):
        rows += [[kind, value.name, _type(value)] for value in values[:_MOST_VALUES]]
        if len(values) > _MOST_VALUES:
            rows.append([kind, f"... and {len(values) - _MOST_VALUES} more", ""])
    return table(["", "name", "type and shape"], rows, left=3) + f"\n  The batch is {report.batch}."


def _scores(report: ModelReport) -> str:
    scores, node = report.scores, report.scores_node
    assert scores is not None
    what = "Output" if report.of == "output" else "Logits"
    text = f"{what}: {scores.name!r}, {_type(scores)}"
    if node is not None:
        text += f", computed by the {node.op} node {node.name!r}"
    if report.softmax:
        text += f"; the {report.softmax} behind them is looked through"
    if report.of != "output" and scores.shape is not None and scores.shape[1:2] == (1,):
        text += ". There is one column only; for the output of a regression choose --of output"
    return f"{text}."


def _path(report: ModelReport, nodes: bool) -> str:
    from vogcore.cli._text import table, wrap

    assert report.wrt is not None
    assert report.scores is not None
    count = Counter(node.op for node in report.path)
    head = (
        f"Path from {report.wrt.name!r}, {_type(report.wrt)}, to {report.scores.name!r}: "
        f"{'1 node' if len(report.path) == 1 else f'{len(report.path):,} nodes'}"
    )
    if not nodes:
        listed = ", ".join(f"{number:,} {op}" for op, number in count.most_common())
        return wrap(f"{head} ({listed}).")
    blocked = {problem.node: "no rule" if problem.missing else "not covered" for problem in report.problems}
    rows = [[node.op, node.name, blocked.get(node.name, "")] for node in report.path]
    return f"{wrap(head)}\n{table(['operator', 'node', ''], rows, left=3)}"


def _problems(report: ModelReport) -> str:
    from vogcore.cli._text import wrap

    parts = []
    missing: dict[str, list[str]] = {}
    for problem in report.problems:
        if problem.missing:
            missing.setdefault(problem.op, []).append(problem.node)
    if missing:
        lines = [wrap(f"{op}, {_nodes(names)}", "  ") for op, names in missing.items()]
        parts.append("\n".join(["Operators without a gradient rule:", *lines]))
    uncovered = [wrap(problem.reason, "  ") for problem in report.problems if not problem.missing]
    if uncovered:
        parts.append("\n".join(["Uses of an operator that its rule does not cover:", *uncovered]))
    return "\n\n".join(parts)


def _candidates(report: ModelReport) -> str:
    from vogcore.cli._text import quoted, table

    rows = [[value.name, _type(value)] for value in report.candidates]
    first = quoted(report.candidates[0].name)
    return (
        "Floating-point tensors that can be chosen with --wrt:\n"
        + table(["name", "type and shape"], rows, left=2)
        + f"\nTry: vogcore check-model {quoted(report.model)} --wrt {first}"
    )


def _comparison(report: ModelReport) -> str:
    from vogcore.cli._text import wrap

    check = report.self_check
    lines = [f"The gradient graph has {report.gradient_nodes:,} nodes."]
    if check.median_error is not None and check.verdict != "inconclusive":
        lines.append(
            f"Compared with finite differences on random input ({check.examples} "
            f"example{'' if check.examples == 1 else 's'}, {check.directions} directions): relative error "
            f"{check.median_error:.1e} in the median ({check.tolerance:.2g} allowed), {check.largest_error:.1e} at "
            "most."
        )
    if check.independent is False:
        lines.append(
            "WARNING: the scores of an example depend on the other examples of its batch, so that its gradient does "
            "too; scores of single examples would mean little."
        )
    return "\n".join(wrap(line) for line in lines)


def _nodes(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MOST_NAMES])
    more = f", and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return f"{'1 node' if len(names) == 1 else f'{len(names):,} nodes'}: {shown}{more}"


def _type(value: Tensor) -> str:
    if value.shape is None:
        return f"{value.type} of unknown shape"
    return f"{value.type} ({', '.join('?' if size is None else str(size) for size in value.shape)})"


def _shape(word: str) -> tuple[str, tuple[int, ...]]:
    name, sign, sizes = word.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not sign or not name or not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{word[:60]!r} is not NAME=N,N,... with positive sizes, such as x=4,3,32,32")
    return name, shape
