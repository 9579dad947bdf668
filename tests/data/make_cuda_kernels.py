"""How ``vogcore/graph/cuda_kernels.json`` was made: the kernels of ONNX Runtime's CUDA provider, by its own list.

    python tests/data/make_cuda_kernels.py list 1.27.json       with each ONNX Runtime that is supported
    python tests/data/make_cuda_kernels.py table 1.27.json 1.31.json > vogcore/graph/cuda_kernels.json

``list`` asks the GPU build for all its kernels. It needs a process in which the provider's libraries load (CUDA,
cuDNN, TensorRT); no kernel is run. ``table`` keeps what every listed version has, for each version of an operator's
schema from opset 17 on.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable

import onnx

OLDEST = 17
Kernels = dict[str, dict[int, set[tuple[tuple[str, str], ...]]]]


def list_kernels(path: str) -> None:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kernels = [
        {
            "op": kernel.op_name,
            "since": kernel.version_range[0],
            "until": kernel.version_range[1] if kernel.version_range[1] < 2**31 - 1 else None,
            "types": {name: sorted(types) for name, types in kernel.type_constraints.items()},
        }
        for kernel in state.get_all_opkernel_def()
        if kernel.provider == "CUDAExecutionProvider" and kernel.domain in ("", "ai.onnx")
    ]
    with open(path, "w") as file:
        json.dump({"onnxruntime": onnxruntime.__version__, "kernels": kernels}, file)


def schema_versions() -> dict[str, list[int]]:
    versions: dict[str, set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            versions.setdefault(schema.name, set()).add(schema.since_version)
    current = {name: max((v for v in known if v <= OLDEST), default=OLDEST) for name, known in versions.items()}
    return {name: sorted(v for v in known if v >= current[name]) for name, known in versions.items()}


def covered(kernels: Iterable[dict], versions: dict[str, list[int]]) -> Kernels:
    """Operator -> version of its schema -> combinations of types, each ((constraint, type), ...)."""
    result: Kernels = {}
    for kernel in kernels:
        for version in versions.get(kernel["op"], ()):
            # A kernel without an end matches the version it starts with only.
            last = kernel["since"] if kernel["until"] is None else kernel["until"]
            if kernel["since"] <= version <= last:
                names = sorted(kernel["types"])
                plain = [[t.removeprefix("tensor(").removesuffix(")") for t in kernel["types"][n]] for n in names]
                chosen = result.setdefault(kernel["op"], {}).setdefault(version, set())
                chosen.update(tuple(zip(names, types)) for types in itertools.product(*plain))
    return result


def merged(combinations: Iterable[tuple[tuple[str, str], ...]]) -> list[dict[str, str]]:
    """Combinations that differ in one constraint only, written as one."""
    groups = {tuple((name, (t,)) for name, t in combination) for combination in combinations}
    for position in range(max((len(group) for group in groups), default=0)):
        by_rest: dict[tuple, set[str]] = {}
        for group in groups:
            if position >= len(group):
                by_rest.setdefault(group, set())
                continue
            rest = (*group[:position], (group[position][0], None), *group[position + 1 :])
            by_rest.setdefault(rest, set()).update(group[position][1])
        groups = {
            tuple((name, types if types is not None else tuple(sorted(joined))) for name, types in rest)
            for rest, joined in by_rest.items()
        }
    return sorted(({name: " ".join(types) for name, types in group} for group in groups), key=str)


def table(paths: list[str]) -> None:
    lists = []
    for path in paths:
        with open(path) as file:
            lists.append(json.load(file))
    versions = schema_versions()
    parts = [covered(entry["kernels"], versions) for entry in lists]
    kernels: dict[str, dict[str, list[dict[str, str]]]] = {}
    for op in sorted(set.intersection(*(set(part) for part in parts))):
        for version in sorted(set.intersection(*(set(part[op]) for part in parts))):
            common = set.intersection(*(part[op][version] for part in parts))
            if common:
                kernels.setdefault(op, {})[str(version)] = merged(common)
    print('{"onnxruntime": ' + json.dumps([entry["onnxruntime"] for entry in lists]) + ',\n "kernels": {')
    print(",\n".join(f'  "{op}": {json.dumps(entry)}' for op, entry in kernels.items()))
    print("}}")


if __name__ == "__main__":
    if sys.argv[1] == "list":
        list_kernels(sys.argv[2])
    else:
        table(sys.argv[2:])
