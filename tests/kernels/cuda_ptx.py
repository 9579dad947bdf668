"""Compiles every CUDA kernel to PTX for one compute capability, without a GPU: ``python cuda_ptx.py 9.0``.

Prints one line of JSON: kernel and types -> PTX.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numba.cuda.dispatcher
from numba import cuda, types

from vogcore.kernels import _cuda, _cuda_classes
from vogcore.kernels._cuda_pixel import ENCODINGS, LAYOUTS, PLAIN

INT, F, FLAG = types.int64, types.float64, types.boolean
BITS = types.uint16


def array(element, ndim=1):
    return types.Array(element, ndim, "C")


def gradient_signatures():
    """(name, kernel, types): every encoding in every layout, and the other types of gradients and moments."""
    for encoding in ENCODINGS:
        for layout in LAYOUTS:
            kernels = _cuda.gradient_kernels(encoding, layout)
            elements = [types.float32 if encoding == PLAIN else BITS]
            if encoding == PLAIN and layout == "mean_of_3":
                elements.append(types.float64)
            for element in elements:
                name = f"{encoding} {layout} {element}"
                for moments in (F, types.float32) if layout == "single" else (F,):
                    own = array(moments, 2)
                    update = (array(element, 2), INT, INT, INT, own, own, F, F, array(F, 2))
                    yield f"update {name} {moments}", kernels.update, update
                block = (array(element, 2), array(INT), INT, INT, INT, INT, INT, array(F, 2), array(F, 2))
                yield f"block_score {name}", kernels.block_score, block


def signatures():
    yield from gradient_signatures()
    own = [array(F)] * 4
    single = [array(types.float32)] * 4
    classes, tables = array(INT), array(F, 2)
    yield "score_tiles", _cuda.score_tiles, (array(F, 2), F, INT, tables)
    yield "score_tiles float32", _cuda.score_tiles, (array(types.float32, 2), F, INT, tables)
    yield "sum_parts", _cuda.sum_parts, (tables, array(F))
    yield "merge_pixels", _cuda.merge_pixels, (*own, F, F, INT)
    yield "merge_pixels float32", _cuda.merge_pixels, (*single, F, F, INT)
    yield "outside", _cuda_classes.outside, (classes, INT, classes)
    yield "outside uint8", _cuda_classes.outside, (array(types.uint8), INT, classes)
    yield "first_of_class", _cuda_classes.first_of_class, (classes, array(INT, 2), array(INT, 2))
    yield "pick", _cuda_classes.pick, (array(F), classes, array(F))
    yield "sums_of_class", _cuda_classes.sums_of_class, (array(F), classes, array(F), tables, tables)
    standardise = (array(F), classes, array(F), array(F), array(FLAG), INT, array(F))
    yield "standardise", _cuda_classes.standardise, standardise


def main():
    major, minor = map(int, sys.argv[1].split("."))
    # Numba asks for the current GPU when one function compiled for the device calls another.
    numba.cuda.dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(major, minor))
    compiled = {}
    for name, kernel, signature in signatures():
        compiled[name], _ = cuda.compile_ptx(kernel.py_func, signature, cc=(major, minor))
    print(json.dumps(compiled))


if __name__ == "__main__":
    main()
