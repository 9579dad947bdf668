"""``vogcore gradient-model``: a forward ONNX model in, a gradient model out."""

from __future__ import annotations

import argparse
from typing import Any

from vogcore.cli._gradient_options import add_gradient_options, gradient_options

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "gradient-model",
        help="turn a forward ONNX model into one that also computes the input gradient",
        description="Write an ONNX model with the added input vogcore_target (class index of each example,\n"
        "unless --target says otherwise) and the added output vogcore_gradient.",
        epilog="examples:\n  vogcore gradient-model model.onnx -o gradient.onnx\n"
        "  vogcore gradient-model model.onnx -o gradient.onnx --of loss --target predicted",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("model", metavar="ONNX", help="forward model")
    parser.add_argument("-o", "--output", required=True, metavar="ONNX", help="gradient model to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    add_gradient_options(parser)


def run(options: argparse.Namespace) -> int:
    """Transform and write."""
    import vogcore
    from vogcore._checkpoint import save_checkpoint
    from vogcore.cli._text import printable
    from vogcore.cli.score import refuse_same_file
    from vogcore.store import check_output

    refuse_same_file(options.output, [options.model])
    check_output(options.output, options.overwrite)
    model = vogcore.gradient_model(options.model, **gradient_options(options))
    save_checkpoint(model, options.output, {})
    print(f"{printable(options.output)}: {len(model.graph.node)} nodes, opset {_opset(model)}")
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            print(f"  {kind:6}  {printable(value.name)}  {printable(_type(value))}")
    return 0


def _opset(model: Any) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _type(value: Any) -> str:
    import onnx

    tensor = value.type.tensor_type
    sizes = ", ".join(
        str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim
    )
    return f"{onnx.TensorProto.DataType.Name(tensor.elem_type).lower()} ({sizes})"
