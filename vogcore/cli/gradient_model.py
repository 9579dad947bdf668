"""``vogcore gradient-model``: a forward ONNX model in, a gradient model out."""

from __future__ import annotations

import argparse
from typing import Any

from vogcore.autodiff import CHANNELS
from vogcore.cli._gradient_options import add_gradient_options, gradient_options
from vogcore.cli._json import add_json_option, print_json
from vogcore.cli._parser import add_command

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "gradient-model",
        run,
        summary="turn a forward ONNX model into one that also computes the input gradient",
        description="Write an ONNX model with the added input vogcore_target (class index of each example,\n"
        "unless --target says otherwise) and the added output vogcore_gradient.",
        examples=[
            "vogcore gradient-model model.onnx -o gradient.onnx",
            "vogcore gradient-model model.onnx -o gradient.onnx --of loss --target predicted",
        ],
    )
    parser.add_argument("model", metavar="ONNX", help="forward model")
    parser.add_argument("-o", "--output", required=True, metavar="ONNX", help="gradient model to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    add_gradient_options(parser)
    parser.add_argument(
        "--channels",
        default="none",
        choices=CHANNELS,
        metavar="WHAT",
        help="none (default), or mean: the signed mean of the gradient over its channels",
    )
    parser.add_argument(
        "--channel-axis", type=int, metavar="AXIS", help="axis of the channels (default: for images, the short one)"
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Transform and write."""
    import vogcore
    from vogcore.cli._text import printable
    from vogcore.cli.score import refuse_same_file
    from vogcore.graph.save import save_model
    from vogcore.store import check_output

    refuse_same_file(options.output, [options.model])
    check_output(options.output, options.overwrite)
    choices = {**gradient_options(options), "channels": options.channels, "channel_axis": options.channel_axis}
    model = vogcore.gradient_model(options.model, **choices)
    files = save_model(model, options.output, overwrite=options.overwrite)
    if options.json:
        values = {
            f"{kind}s": [{"name": value.name, "type": _type(value)} for value in group]
            for kind, group in (("input", model.graph.input), ("output", model.graph.output))
        }
        content = {"output": options.output, "files": list(map(str, files)), "nodes": len(model.graph.node)}
        print_json("gradient-model", {**content, "opset": _opset(model), **values})
        return 0
    print(f"{printable(options.output)}: {len(model.graph.node)} nodes, opset {_opset(model)}")
    for extra in files[1:]:
        print(f"{printable(str(extra))}: its weights, which belong in the same folder")
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
