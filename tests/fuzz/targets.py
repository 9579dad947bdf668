"""The readers under test, and the valid files that their mutations start from."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

__all__ = ["READERS", "write_seeds"]

DATA = Path(__file__).parents[1] / "data"


def _read_scores(path: Path) -> None:
    from vogcore.store import open_scores

    scores = open_scores(path)
    repr(scores)
    for stage in scores.stages:
        scores.hardest(2, stage=stage)


def _read_archive(path: Path) -> None:
    from vogcore.store import open_gradients

    with open_gradients(path) as archive:
        for checkpoint in range(min(archive.n_checkpoints, 8)):
            for start in range(0, min(archive.n_examples, 64), 4):
                stop = min(start + 4, archive.n_examples)
                archive.read(checkpoint, start, stop)
                if archive.has_logits:
                    archive.read_logits(checkpoint, start, stop)


def _read_examples(path: Path) -> None:
    from vogcore.data import open_source

    labels = np.zeros(4, np.int64) if path.suffix == ".npy" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = open_source(path, labels, require_labels=False)
    for start in range(0, min(len(source), 64), 8):
        source.read(start, min(start + 8, len(source)))
    source.close()


def _read_model(path: Path) -> None:
    from vogcore.graph import load_model, weights_digest

    weights_digest(load_model(path))


def _differentiate(path: Path) -> None:
    from vogcore import gradient_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gradient_model(path)


READERS: dict[str, Callable[[Path], None]] = {
    "scores": _read_scores,
    "archive": _read_archive,
    "hdf5": _read_examples,
    "arrays": _read_examples,
    "onnx": _read_model,
    "gradient": _differentiate,
}


def write_seeds(folder: Path) -> dict[str, list[Path]]:
    """Valid files for every reader, small ones; golden files are taken as they are."""
    return {
        "scores": sorted(DATA.glob("scores/*/*.h5")),
        "archive": sorted(DATA.glob("archive/*/*.h5")),
        "hdf5": _hdf5_files(folder),
        "arrays": _array_files(folder),
        "onnx": (models := _models(folder)),
        "gradient": models,
    }


_X = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
_Y = np.arange(4)


def _hdf5_files(folder: Path) -> list[Path]:
    import h5py

    paths = []
    for libver in ("earliest", "latest"):
        plain = folder / f"plain-{libver}.h5"
        with h5py.File(plain, "w", libver=libver) as file:
            file["x"], file["y"] = _X, _Y
        text = folder / f"text-{libver}.h5"
        with h5py.File(text, "w", libver=libver) as file:
            file["x"], file["y"] = _X, _Y
            file["ids"] = ["a", "b", "c", "dd"]
            file["class_names"] = ["one", "two", "three", "four"]
        chunked = folder / f"chunked-{libver}.h5"
        with h5py.File(chunked, "w", libver=libver) as file:
            file.create_dataset("x", data=_X, chunks=(2, 3, 2), compression="gzip", shuffle=True, fletcher32=True)
            file.create_dataset("y", data=_Y, chunks=(2,), maxshape=(None,))
            file["group/deeper"] = h5py.SoftLink("/y")
        paths += [plain, text, chunked]
    virtual = folder / "virtual.h5"
    with h5py.File(virtual, "w", libver="earliest") as file:
        file["part"], file["y"] = _X, _Y
        file["ids"] = np.array([b"a", b"b", b"c", b"dd"])
        layout = h5py.VirtualLayout(_X.shape, _X.dtype)
        layout[:2] = h5py.VirtualSource(".", "part", _X.shape)[2:]
        layout[2:] = h5py.VirtualSource(".", "part", _X.shape)[:2]
        file.create_virtual_dataset("x", layout)
    return [*paths, virtual]


def _array_files(folder: Path) -> list[Path]:
    np.save(folder / "x.npy", _X)
    np.save(folder / "fortran.npy", np.asfortranarray(_X.astype(">f8")))
    names = np.array(["one", "two", "three", "four"])
    np.savez(folder / "stored.npz", x=_X, y=_Y, class_names=names)
    np.savez_compressed(folder / "packed.npz", x=_X, y=_Y, ids=np.arange(4) + 7)
    paths = [folder / name for name in ("x.npy", "fortran.npy", "stored.npz", "packed.npz")]
    for name, method in (("bzip2.npz", zipfile.ZIP_BZIP2), ("lzma.npz", zipfile.ZIP_LZMA)):
        with zipfile.ZipFile(folder / name, "w", method) as archive:
            for key, value in (("x", _X), ("y", _Y)):
                buffer = io.BytesIO()
                np.save(buffer, value)
                archive.writestr(f"{key}.npy", buffer.getvalue())
        paths.append(folder / name)
    return paths


def _models(folder: Path) -> list[Path]:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(1)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    image = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "v", "d"], ["y"], transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [weight("w", 4, 3, 3, 3), weight("b", 4), weight("v", 5, 4), weight("d", 5)],
    )
    branch = [
        helper.make_graph(
            [helper.make_node(op, ["h"], [f"{op}_out"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, None)],
        )
        for op in ("Relu", "Neg")
    ]
    nested = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
            helper.make_node("Greater", ["s", "zero"], ["flag"]),
            helper.make_node("If", ["flag"], ["y"], then_branch=branch[0], else_branch=branch[1]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [weight("w", 6, 3), numpy_helper.from_array(np.float32(0), "zero")],
    )
    function = helper.make_function(
        "own", "Twice", ["a"], ["z"], [helper.make_node("Add", ["a", "a"], ["z"])], [helper.make_opsetid("", 18)]
    )
    called = helper.make_graph(
        [
            helper.make_node("Twice", ["x"], ["h"], domain="own"),
            helper.make_node("MatMul", ["h", "w"], ["l"]),
            helper.make_node("Softmax", ["l"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [weight("w", 6, 3)],
    )
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    paths = []
    for name, graph, functions in (("image", image, []), ("nested", nested, []), ("called", called, [function])):
        model = helper.make_model(graph, opset_imports=opset, functions=functions, ir_version=10)
        paths.append(folder / f"{name}.onnx")
        onnx.save_model(model, paths[-1])
    beside = folder / "beside.onnx"
    onnx.save_model(onnx.load(paths[0]), beside, save_as_external_data=True, location="beside.data", size_threshold=0)
    return [*paths, beside]
