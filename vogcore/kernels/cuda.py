"""The functions of :mod:`vogcore.kernels` for arrays on a CUDA device; ``devices.py`` sends their calls here.

Arguments, results and errors are those of the functions for NumPy arrays, with three differences. Arrays must be
C-contiguous: a copy would cost device memory that nobody asked for. Moments are updated on the device, and what has
one value for each example or class comes back as NumPy arrays. Results agree with those of the CPU to rounding, not
bit for bit; two calls on the same kind of device give the same bits.

Kernels run on the stream that an array names (``stream`` of the CUDA array interface, Numba's own arrays), else on
Numba's default stream, which is CUDA's legacy default stream; libraries that speak DLPack are told of it and wait for
their own work. A call returns when its results are there, so the memory of its arguments may be used again at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vogcore.errors import DataError, GradientError, SettingsError
from vogcore.kernels import _cuda, _cuda_classes, statistics
from vogcore.kernels._cuda_arrays import Call, DeviceArray, call, empty, scratch, threads_for, to_host
from vogcore.kernels._cuda_pixel import PLAIN, choose_layout
from vogcore.kernels.block import BlockScore
from vogcore.kernels.checks import MODES, check_count, check_reduction, layout_of
from vogcore.kernels.statistics import ClassStatistics

__all__ = [
    "block_score",
    "class_statistics",
    "empty",
    "merge_moments",
    "normalise",
    "robust_statistics",
    "score_from_moments",
    "self_check",
    "to_host",
    "update_moments",
]


def _gradients(here: Call, gradients: Any, batch_axes: int) -> tuple[Any, str]:
    """Numba's view of gradients, 16-bit floats as their bits, and the encoding."""
    found = here.array("gradients", gradients)
    view = found.view
    if view.ndim < batch_axes:
        raise GradientError(f"gradients must have {batch_axes} leading axes, but their shape is {view.shape}.")
    if found.is_bfloat16 or view.dtype == np.uint16:
        return view, "bfloat16"
    if view.dtype == np.float16:
        return view.view(np.uint16), "float16"
    if view.dtype not in (np.float32, np.float64):
        raise GradientError(
            f"gradients must be float16, float32, float64 or bfloat16 as uint16 bits, not {view.dtype}."
        )
    return view, PLAIN


def _moments(name: str, found: DeviceArray, shape: tuple[int, int], dtype: np.dtype) -> Any:
    if tuple(found.view.shape) != shape or found.view.dtype != dtype:
        raise GradientError(
            f"{name} must be a {dtype} array of shape {shape}, but it is {found.view.dtype} {tuple(found.view.shape)}."
        )
    if found.read_only:
        raise GradientError(f"{name} is updated in place, so it must be an array that can be written.")
    return found.view


def _moment_pair(here: Call, mean: Any, m2: Any, shape: tuple[int, int] | None) -> tuple[Any, Any]:
    first, second = here.array("mean", mean), here.array("m2", m2)
    dtype = first.view.dtype
    if dtype not in (np.float32, np.float64):
        raise GradientError(f"moments must be float64 or float32 arrays, not {dtype}.")
    if shape is None:
        if first.view.ndim != 2:
            raise GradientError(f"moments must have the shape (examples, pixels), not {tuple(first.view.shape)}.")
        shape = (int(first.view.shape[0]), int(first.view.shape[1]))
    pair = _moments("mean", first, shape, dtype), _moments("m2", second, shape, dtype)
    if _overlap(*pair):
        raise GradientError("mean and m2 share memory: give two separate arrays.")
    return pair


def _overlap(first: Any, second: Any) -> bool:
    if not hasattr(first, "__cuda_array_interface__"):  # the simulator's
        return np.may_share_memory(first._ary, second._ary)
    a, b = (array.__cuda_array_interface__["data"][0] for array in (first, second))
    return bool(a < b + second.nbytes and b < a + first.nbytes)


def _n_tiles(n_pixels: int) -> int:
    return -(-n_pixels // _cuda.TILE)


def _pixel_threads(layout_name: str, count: int, n_pixels: int) -> int:
    """Threads of a block; where they share the channels of a pixel there is work for as many as there are channels."""
    return threads_for(n_pixels * min(count, 32) if layout_name == "wide" else n_pixels)


def _totals(here: Call, parts: Any, out: Any) -> npt.NDArray[np.float64]:
    """Sums (T, B) over T, as NumPy array (B,)."""
    here.elementwise(_cuda.sum_parts, parts.shape[1], parts, out)
    return here.fetch(out)


def update_moments(
    gradients: Any, mean: Any, m2: Any, *, step: int, channel_axis: int | None = None, channels: str = "mean"
) -> npt.NDArray[np.float64]:
    """Add one checkpoint's gradients to the running moments; see :func:`vogcore.kernels.update_moments`."""
    step = check_count("step", step, 1)
    with call(gradients, mean, m2) as here:
        view, encoding = _gradients(here, gradients, 1)
        n_examples = int(view.shape[0])
        outer, count, inner = layout_of(tuple(view.shape[1:]), channel_axis, channels)
        n_pixels = outer * inner
        own_mean, own_m2 = _moment_pair(here, mean, m2, (n_examples, n_pixels))
        if n_examples == 0:
            return np.zeros(0)
        n_tiles, mode = _n_tiles(n_pixels), MODES[channels]
        parts, out = scratch((n_tiles, n_examples), (n_examples,))
        arrangement = choose_layout(count, inner, mode)
        here.launch(
            _cuda.gradient_kernels(encoding, arrangement).update,
            n_tiles * n_examples,
            _pixel_threads(arrangement, count, n_pixels),
            view.reshape(n_examples, count * n_pixels),
            count,
            inner,
            mode,
            own_mean,
            own_m2,
            1.0 / step,
            (step - 1.0) / step,
            parts,
        )
        return _totals(here, parts, out) / n_pixels


def block_score(
    gradients: Any,
    *,
    channel_axis: int | None = None,
    channels: str = "mean",
    reduction: str = "std",
    windows: Sequence[npt.ArrayLike] | None = None,
) -> BlockScore:
    """Score a block whose gradients of all checkpoints are in device memory; nothing of its size is written.

    Args:
        gradients: (K, B, ...) float32, float64 or float16, or bfloat16 as uint16 bits.
        channel_axis: axis of the channels in the gradients (B, ...) of one checkpoint, 1 or more, or None.
        channels: as for :func:`vogcore.kernels.update_moments`.
        reduction: as for :func:`vogcore.kernels.score_from_moments`.
        windows: None for all K checkpoints, or for each of W windows the indices of its checkpoints. The gradients of a
            checkpoint are read once for each window that it is in.

    Returns:
        Scores and mean magnitudes, (B,) or (W, B) float64; not finite where a gradient of the example at one of the
        checkpoints is not.

    Raises:
        GradientError: if gradients have another type or shape.
        SettingsError: for an unknown ``channels`` or ``reduction``, an axis that does not exist, or a window that is
            empty, repeats a checkpoint, or names one that does not exist.
    """
    check_reduction(reduction)
    with call(gradients) as here:
        view, encoding = _gradients(here, gradients, 2)
        n_steps, n_examples = int(view.shape[0]), int(view.shape[1])
        outer, count, inner = layout_of(tuple(view.shape[2:]), channel_axis, channels)
        if n_steps == 0:
            raise GradientError("gradients hold no checkpoint: their first axis must be at least 1.")
        chosen = [np.arange(n_steps)] if windows is None else [_window(window, n_steps) for window in windows]
        scores = np.zeros((2, len(chosen), n_examples))
        n_pixels = outer * inner
        n_tiles, mode = _n_tiles(n_pixels), MODES[channels]
        arrangement = choose_layout(count, inner, mode)
        kernel = _cuda.gradient_kernels(encoding, arrangement).block_score
        for window, steps in enumerate(chosen if n_examples else []):
            sums, parts, out = scratch((n_tiles, n_examples), (n_tiles, n_examples), (n_examples,))
            here.launch(
                kernel,
                n_tiles * n_examples,
                _pixel_threads(arrangement, count, n_pixels),
                view.reshape(n_steps * n_examples, count * n_pixels),
                here.upload(steps * n_examples),
                count,
                inner,
                n_pixels,
                mode,
                int(reduction == "std"),
                sums,
                parts,
            )
            scores[0, window] = _totals(here, sums, out) / n_pixels
            scores[1, window] = _totals(here, parts, out) / (n_pixels * steps.size)
    return BlockScore(*(scores[:, 0] if windows is None else scores))


def _window(window: npt.ArrayLike, n_steps: int) -> npt.NDArray[np.int64]:
    steps = np.asarray(window)
    if steps.ndim != 1 or steps.size == 0 or steps.dtype.kind not in "iu":
        raise SettingsError(f"a window must be a list of checkpoint indices, not {window!r}.")
    if steps.min() < 0 or steps.max() >= n_steps or np.unique(steps).size != steps.size:
        raise SettingsError(
            f"a window must name checkpoints 0 to {n_steps - 1}, each at most once, not {steps.tolist()}."
        )
    return steps.astype(np.int64)


def score_from_moments(m2: Any, n: int, *, reduction: str = "std") -> npt.NDArray[np.float64]:
    """Raw variance of gradients from moments; see :func:`vogcore.kernels.score_from_moments`."""
    n = check_count("n", n, 1)
    check_reduction(reduction)
    with call(m2) as here:
        view = here.array("m2", m2).view
        if view.ndim != 2 or view.shape[1] == 0 or view.dtype not in (np.float32, np.float64):
            raise GradientError(
                f"m2 must be float64 or float32 of shape (examples, pixels), not {view.dtype} {tuple(view.shape)}."
            )
        n_examples, n_pixels = (int(size) for size in view.shape)
        if n_examples == 0:
            return np.zeros(0)
        n_tiles = _n_tiles(n_pixels)
        sums, out = scratch((n_tiles, n_examples), (n_examples,))
        root = int(reduction == "std")
        here.launch(_cuda.score_tiles, n_tiles * n_examples, threads_for(n_pixels), view, 1.0 / n, root, sums)
        return _totals(here, sums, out) / n_pixels


def merge_moments(mean: Any, m2: Any, n: int, other_mean: Any, other_m2: Any, other_n: int) -> None:
    """Merge the moments of disjoint sets of checkpoints; see :func:`vogcore.kernels.merge_moments`."""
    n, other_n = check_count("n", n, 0), check_count("other_n", other_n, 0)
    with call(mean, m2, other_mean, other_m2) as here:
        own = _moment_pair(here, mean, m2, None)
        others = [here.array("other_mean", other_mean).view, here.array("other_m2", other_m2).view]
        for name, array in zip(("other_mean", "other_m2"), others):
            if tuple(array.shape) != tuple(own[0].shape) or array.dtype != own[0].dtype:
                raise GradientError(
                    f"{name} must be {own[0].dtype} {tuple(own[0].shape)} like the moments it is merged into, but it "
                    f"is {array.dtype} {tuple(array.shape)}."
                )
        size = int(own[0].size)
        if other_n == 0 or size == 0:
            return
        mean_weight = other_n / (n + other_n)
        flat = [array.reshape(size) for array in (*own, *others)]
        here.elementwise(_cuda.merge_pixels, size, *flat, mean_weight, n * mean_weight, int(n == 0))
        # The others may be overwritten as soon as this returns, on whatever stream.
        here.wait()


def _classes(here: Call, scores: Any, classes: Any, n_classes: int) -> tuple[Any, Any]:
    values, labels = here.array("scores", scores).view, here.array("classes", classes).view
    if values.ndim != 1 or tuple(labels.shape) != tuple(values.shape):
        raise DataError(
            f"scores {tuple(values.shape)} and classes {tuple(labels.shape)} must be two lists of the same length."
        )
    if values.dtype.kind != "f" or values.dtype.itemsize < 4:
        raise DataError(f"scores on a GPU must be float64 or float32, not {values.dtype}.")
    if labels.dtype.kind not in "iu":
        raise DataError(f"classes must be integers, not {labels.dtype}.")
    n_slices = _n_slices(values)
    if n_slices:
        first = empty((n_slices,), np.int64)
        here.elementwise(_cuda_classes.outside, n_slices, labels, n_classes, first)
        position = int(here.fetch(first).min())
        if position < values.size:
            label = here.fetch(labels[position : position + 1])[0]
            raise DataError(
                f"example {position} has class {label}, but classes go from 0 to {n_classes - 1} (-1 for an example "
                "without class)."
            )
    return values, labels


def _n_slices(values: Any) -> int:
    return -(-int(values.size) // _cuda_classes.SLICE)


def class_statistics(scores: Any, classes: Any, n_classes: int) -> ClassStatistics:
    """Mean and population standard deviation of every class; see :func:`vogcore.kernels.class_statistics`."""
    with call(scores, classes) as here:
        values, labels = _classes(here, scores, classes, n_classes)
        shape = (_n_slices(values), n_classes)
        if 0 in shape:
            nothing = np.full(n_classes, np.nan)
            return ClassStatistics(np.zeros(n_classes, np.int64), nothing, nothing.copy())
        counts, firsts = empty(shape, np.int64), empty(shape, np.int64)
        here.elementwise(_cuda_classes.first_of_class, shape[0] * n_classes, labels, counts, firsts)
        count: npt.NDArray[np.int64] = here.fetch(counts).sum(axis=0)
        occurs = count > 0
        first = here.fetch(firsts).min(axis=0)
        origin = np.zeros(n_classes)
        origin[occurs] = _picked(here, values, first[occurs])
        total, _ = _class_sums(here, values, labels, origin)
        with np.errstate(invalid="ignore", divide="ignore"):
            # As on the CPU: sums of differences from the first score of the class, so that equal scores have no
            # spread, and a second pass that corrects both moments for the rounding of the first.
            mean = origin + total / count
            residual, squares = _class_sums(here, values, labels, mean)
            shift = residual / count
            variance = squares / count - shift * shift
            variance[variance < 0.0] = 0.0
            return ClassStatistics(count, mean + shift, np.sqrt(variance))


def _picked(here: Call, values: Any, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    out = empty((max(positions.size, 1),), np.float64)
    here.elementwise(_cuda_classes.pick, positions.size, values, here.upload(positions), out)
    return here.fetch(out)[: positions.size]


def _class_sums(
    here: Call, values: Any, labels: Any, origin: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sums over every class of score - origin and of its square, each (C,)."""
    shape = (_n_slices(values), origin.size)
    total, squares, out = scratch(shape, shape, (origin.size,))
    here.elementwise(
        _cuda_classes.sums_of_class, shape[0] * shape[1], values, labels, here.upload(origin), total, squares
    )
    return _totals(here, total, out), _totals(here, squares, out)


def robust_statistics(scores: Any, classes: Any, n_classes: int) -> ClassStatistics:
    """Median and scaled MAD of every class, computed on the host; see :func:`vogcore.kernels.robust_statistics`."""
    return statistics.robust_statistics(to_host(scores), to_host(classes), n_classes)


def normalise(
    scores: Any, classes: Any, mean: Any, std: Any, *, absolute: bool = False, zero_spread: Any = None
) -> npt.NDArray[np.float64]:
    """Class-normalised scores; see :func:`vogcore.kernels.normalise`. What belongs to the classes may lie anywhere."""
    means, stds, flat = statistics.checked_spread(mean, std, zero_spread)
    with call(scores, classes) as here:
        values, labels = _classes(here, scores, classes, means.size)
        if values.size == 0:
            return np.zeros(0)
        out = empty((int(values.size),), np.float64)
        statistics_there = [here.upload(array) for array in (means, stds, flat)]
        here.elementwise(
            _cuda_classes.standardise, int(values.size), values, labels, *statistics_there, int(bool(absolute)), out
        )
        return here.fetch(out)


def self_check() -> None:
    """Compile and run a kernel on a little input, on the device that comes first.

    Raises:
        Exception: of any kind, where something that is needed for it is missing, or the result is wrong.
    """
    gradients = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    mean, m2, own = (empty(shape, dtype) for shape, dtype in (((2, 4), "f8"), ((2, 4), "f8"), ((2, 3, 4), "f4")))
    own.copy_to_device(gradients)
    magnitudes = update_moments(own, mean, m2, step=1, channel_axis=1)
    expected = gradients.mean(axis=1)
    if not (np.allclose(to_host(mean), expected) and np.allclose(magnitudes, expected.mean(axis=1))):
        raise RuntimeError("a kernel gives wrong results")
