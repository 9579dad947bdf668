"""Does this installation work on this machine? Versions, processors, GPU, folders, and tests that compute something."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from vogcore.errors import VogcoreError

__all__ = ["Finding", "examine"]

Status = Literal["ok", "note", "broken"]

_PACKAGES = {
    "numpy": "numpy",
    "numba": "numba",
    "llvmlite": "llvmlite",
    "onnx": "onnx",
    "onnx-ir": "onnx_ir",
    "h5py": "h5py",
    "ml_dtypes": "ml_dtypes",
    "xxhash": "xxhash",
    "tqdm": "tqdm",
}
"""Distributions that vogcore cannot do without, and the module of each; ONNX Runtime is looked at by itself."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        status: ``"ok"``, ``"note"`` (works, but not as well as it might) or ``"broken"``.
        text: what was found, in one sentence or less.
        remedy: what to do about it, or "".
        details: figures, as JSON can hold them.
    """

    name: str
    status: Status
    text: str
    remedy: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def examine() -> list[Finding]:
    """Look at everything; whatever fails becomes a finding, nothing is raised. Takes seconds, more with a GPU."""
    findings: list[Finding] = []
    for look in (_versions, _packages, _onnxruntime, _cuda, _cpus, _kernel_cache, _temporary, _kernels, _gradient):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                findings += look()
        except Exception as error:  # noqa: BLE001  (a broken package raises whatever it likes when it is imported)
            name = look.__name__.strip("_").replace("_", " ")
            findings.append(Finding(name, "broken", _sentence(error), _reinstall()))
    return findings


def _versions() -> Iterator[Finding]:
    import vogcore

    details = {
        "vogcore": vogcore.__version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "executable": sys.executable,
    }
    text = f"{vogcore.__version__} on Python {details['python']}, {details['system']}"
    yield Finding("vogcore", "ok", text, details=details)


def _packages() -> Iterator[Finding]:
    versions: dict[str, str] = {}
    broken = []
    for name, module in _PACKAGES.items():
        try:
            importlib.import_module(module)
            versions[name] = importlib.metadata.version(name)
        except Exception as error:  # noqa: BLE001  (see above)
            broken.append(f"{name} cannot be imported ({_sentence(error)})")
    if broken:
        yield Finding("packages", "broken", "; ".join(broken), _reinstall(), versions)
    else:
        text = ", ".join(f"{name} {version}" for name, version in versions.items())
        yield Finding("packages", "ok", text, details=versions)


def _onnxruntime() -> Iterator[Finding]:
    from vogcore.runtime import available_providers, installed_distributions, repair_command

    installed = installed_distributions()
    details: dict[str, Any] = {"distributions": installed}
    name = "ONNX Runtime"
    if len(installed) > 1:
        text = "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files"
        yield Finding(name, "broken", text, f"run {repair_command()}", details)
        return
    try:
        details["providers"] = available_providers()
    except VogcoreError as error:
        text, _, remedy = str(error).partition(": ")
        yield Finding(name, "broken", text, remedy.rstrip("."), details)
        return
    build = ", ".join(f"{package} {version}" for package, version in installed.items()) or "a build of your own"
    yield Finding(name, "ok", f"{build}; built with {', '.join(details['providers'])}", details=details)


def _cuda() -> Iterator[Finding]:
    from vogcore.kernels.devices import INSTALL, problem
    from vogcore.runtime import probe_cuda

    probe = probe_cuda()
    details = {"device": probe.device, "used": probe.problem is None}
    if probe.device is None:
        yield Finding("CUDA", "ok", f"not used: {probe.problem}; gradients are computed on the CPU", details=details)
        return
    if probe.problem is not None:
        yield Finding("CUDA", "note", f"{probe.device} is not used: {probe.problem}", probe.remedy, details)
        return
    yield Finding("CUDA", "ok", f"gradients are computed on {probe.device}", details=details)
    why = problem("cuda")
    if why is None:
        yield Finding("GPU kernels", "ok", "gradients are scored on the GPU, where they are")
    else:
        yield Finding(
            "GPU kernels", "note", f"gradients are copied to the CPU and scored there: {why}", f"run {INSTALL}"
        )


def _cpus() -> Iterator[Finding]:
    from vogcore.kernels import get_threads
    from vogcore.runtime import cpu_counts

    counts, kernels = cpu_counts(), get_threads()
    details = {
        "machine": counts.machine,
        "affinity": counts.affinity,
        "cgroup_quota": counts.quota,
        "onnxruntime_threads": counts.usable,
        "kernel_threads": kernels,
    }
    quota = "no cgroup limit" if counts.quota is None else f"a cgroup limit of {counts.quota:g}"
    text = (
        f"{_number(counts.machine, 'CPU')} in the machine, {counts.affinity} for this process, {quota}; "
        f"{_number(counts.usable, 'thread')} for ONNX Runtime, {kernels} for the kernels"
    )
    if kernels > counts.usable:
        remedy = f"set NUMBA_NUM_THREADS={counts.usable}, or pass --threads {counts.usable}"
        yield Finding("CPUs", "note", f"{text}, which is more than it may use", remedy, details)
    else:
        yield Finding("CPUs", "ok", text, details=details)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _kernel_cache() -> Iterator[Finding]:
    from vogcore.kernels.self_test import compiled_code_folder

    folder = compiled_code_folder()
    if folder is not None and _writable(folder):
        yield Finding("kernel cache", "ok", f"compiled kernels are kept in {folder}", details={"folder": folder})
        return
    where = "no folder for compiled kernels can be written" if folder is None else f"{folder} cannot be written"
    yield Finding(
        "kernel cache",
        "note",
        f"{where}, so they are compiled anew in every process, which takes seconds",
        "set NUMBA_CACHE_DIR to a folder that can be written",
        {"folder": folder},
    )


def _temporary() -> Iterator[Finding]:
    try:
        folder = tempfile.gettempdir()
    except OSError:
        folder = None
    if folder is not None and _writable(folder):
        yield Finding("temporary folder", "ok", f"{folder} can be written", details={"folder": folder})
    else:
        text = "no temporary folder can be written; gradients that come as a stream are kept there"
        yield Finding(
            "temporary folder", "note", text, "set TMPDIR to a folder that can be written", {"folder": folder}
        )


def _writable(folder: str) -> bool:
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _kernels() -> Iterator[Finding]:
    from vogcore.kernels.self_test import self_test

    checks = self_test()
    details = {check.name: check.error for check in checks}
    wrong = [check for check in checks if not check.ok]
    if wrong:
        text = (
            f"{len(wrong)} of {len(checks)} disagree with plain NumPy, such as {wrong[0].name} by {wrong[0].error:.1e}"
        )
        yield Finding("kernels", "broken", text, f"{_reinstall()}, and report it with this output", details)
    else:
        worst = max(check.error for check in checks)
        text = f"{len(checks)} of {len(checks)} agree with plain NumPy (largest relative error {worst:.1e})"
        yield Finding("kernels", "ok", text, details=details)


def _gradient() -> Iterator[Finding]:
    from vogcore.diagnose.check import check_model

    report = check_model(_small_model())
    check = report.self_check
    details = {"verdict": check.verdict, "median_error": check.median_error}
    if report.ok:
        text = f"that of a small network agrees with finite differences (relative error {check.median_error:.1e})"
        yield Finding("gradient", "ok", text, details=details)
    else:
        why = (report.refusal or check.reason or check.verdict).rstrip(".")
        yield Finding("gradient", "broken", f"that of a small network is wrong ({why})", _reinstall(), details)


def _small_model() -> Any:
    """Convolution, pooling and a linear layer; smooth, so that finite differences leave no doubt."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {"k": rng.standard_normal((4, 3, 3, 3)), "w": rng.standard_normal((4, 5))}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["a"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["a"], ["b"], "tanh"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], "pool"),
        helper.make_node("Flatten", ["c"], ["d"], "flatten"),
        helper.make_node("MatMul", ["d", "w"], ["logits"], "linear"),
    ]
    graph = helper.make_graph(
        nodes,
        "self-test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _reinstall() -> str:
    return "install vogcore again in a fresh virtual environment"


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:300] or type(error).__name__
