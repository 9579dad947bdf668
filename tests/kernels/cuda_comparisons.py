"""The functions for arrays on a CUDA device against those for NumPy arrays.

Not collected by itself: `test_cuda_simulator.py` runs it in a process of its own with Numba's simulator, and
`test_cuda_gpu.py` on a real GPU where there is one.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import cuda

from tests.kernels.simulator import SIMULATED
from vogcore import kernels
from vogcore.errors import DataError, GradientError, SettingsError
from vogcore.kernels import _cuda, _cuda_arrays, _cuda_classes, _reference
from vogcore.kernels import cuda as on_device

# (shape of an example, channel axis, channels): one of every way through the kernels, and the edges between them.
LAYOUTS = {
    "none": ((2, 5), None, "mean"),
    "one-pixel": ((3, 1, 1), 1, "mean"),
    "mean-of-3-first": ((3, 5, 7), 1, "mean"),
    "mean-of-3-last": ((4, 5, 3), 3, "mean"),
    "mean-of-3-middle": ((4, 3, 6), 2, "mean"),
    "magnitude-of-3": ((3, 4, 4), 1, "magnitude"),
    "l2-last": ((5, 4), 2, "l2"),
    "many-first": ((11, 6), 1, "mean"),
    "many-middle": ((3, 9, 2), 2, "l2"),
    "wide-mean": ((5, 12), 2, "mean"),
    "wide-magnitude": ((2, 33), 2, "magnitude"),
    "wide-l2": ((2, 40), 2, "l2"),
    "magnitude-without-axis": ((6,), None, "magnitude"),
    "no-reduction": ((3, 4, 2), 1, "none"),
}


def encoded(values, dtype):
    if dtype == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


def gradients_like(shape, dtype, seed=0):
    return encoded(np.random.default_rng(seed).standard_normal(shape) + 0.5, dtype)


def moments(gradients, axis, channels, dtype, move):
    """Moments (host copies) and magnitudes of (K, B, ...), with arrays that ``move`` puts somewhere."""
    pixels = kernels.pixel_count(gradients.shape[2:], axis, channels)
    mean, m2 = (move(np.full((gradients.shape[1], pixels), np.nan, dtype)) for _ in range(2))
    magnitudes = [
        kernels.update_moments(move(block), mean, m2, step=k + 1, channel_axis=axis, channels=channels)
        for k, block in enumerate(gradients)
    ]
    return mean, m2, np.array(magnitudes)


def compare(gradients, axis, channels, dtype="float64", rtol=1e-12):
    mean, m2, magnitudes = moments(gradients, axis, channels, dtype, cuda.to_device)
    expected_mean, expected_m2, expected_magnitudes = moments(gradients, axis, channels, dtype, np.copy)
    scale = float(np.abs(expected_mean).max()) + 1e-300
    np.testing.assert_allclose(mean.copy_to_host(), expected_mean, rtol=rtol, atol=rtol * scale)
    np.testing.assert_allclose(m2.copy_to_host(), expected_m2, rtol=rtol, atol=rtol * scale**2)
    np.testing.assert_allclose(magnitudes, expected_magnitudes, rtol=1e-12)
    assert magnitudes.dtype == np.float64
    for reduction in ("std", "var"):
        score = kernels.score_from_moments(m2, len(gradients), reduction=reduction)
        expected = kernels.score_from_moments(expected_m2, len(gradients), reduction=reduction)
        np.testing.assert_allclose(score, expected, rtol=max(rtol, 1e-12) * 10)


def compare_block(gradients, axis, channels):
    for reduction in ("std", "var"):
        score, magnitude = on_device.block_score(
            cuda.to_device(gradients), channel_axis=axis, channels=channels, reduction=reduction
        )
        np.testing.assert_allclose(score, _reference.vog(gradients, axis, channels, reduction), rtol=1e-10)
        expected = _reference.mean_abs_gradient(gradients, axis, channels).mean(axis=0)
        np.testing.assert_allclose(magnitude, expected, rtol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_moments_and_block_score_of_every_layout(layout):
    shape, axis, channels = LAYOUTS[layout]
    gradients = gradients_like((3, 2, *shape), np.float32)
    compare(gradients, axis, channels)
    compare_block(gradients, axis, channels)


@pytest.mark.parametrize("layout", ["none", "mean-of-3-first", "many-first", "wide-l2"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_type_of_gradients(layout, dtype):
    shape, axis, channels = LAYOUTS[layout]
    gradients = gradients_like((3, 2, *shape), dtype)
    compare(gradients, axis, channels)
    compare_block(gradients, axis, channels)


def test_float32_moments():
    compare(gradients_like((4, 3, 3, 4, 4), np.float32), 1, "mean", "float32", rtol=1e-6)


@pytest.fixture
def short_parts(monkeypatch):
    """Several tiles and slices: in the simulator short ones, where a thread costs a millisecond."""
    if SIMULATED:
        monkeypatch.setattr(_cuda, "TILE", 64)
        monkeypatch.setattr(_cuda_classes, "SLICE", 64)
        monkeypatch.setattr(_cuda_arrays, "THREADS", 16)


@pytest.mark.usefixtures("short_parts")
def test_more_than_a_tile_of_pixels():
    gradients = gradients_like((2, 2, 2 * _cuda.TILE + 7), np.float32)
    compare(gradients, None, "mean")
    compare_block(gradients, None, "mean")


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 6, 9, 10])
def test_block_score_of_any_number_of_checkpoints(steps):
    compare_block(gradients_like((steps, 2, 3, 5), np.float32), 1, "mean")


@given(
    steps=st.integers(1, 6),
    examples=st.integers(1, 3),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    channels=st.sampled_from(["mean", "magnitude", "l2", "none"]),
    dtype=st.sampled_from(["float32", "float64", "float16", "bfloat16"]),
    axis=st.integers(0, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=10 if SIMULATED else 200, deadline=None)
def test_any_shape(steps, examples, shape, channels, dtype, axis, seed):
    axis = axis if 1 <= axis <= len(shape) else None
    gradients = gradients_like((steps, examples, *shape), dtype, seed)
    compare(gradients, axis, channels, rtol=1e-11)
    compare_block(gradients, axis, channels)


def test_block_score_of_windows():
    gradients = gradients_like((7, 2, 3, 4), np.float32)
    windows = [range(7), [5, 0, 1], np.array([6])]
    found = on_device.block_score(cuda.to_device(gradients), channel_axis=1, windows=windows)
    assert found.vog.shape == found.magnitude.shape == (3, 2)
    for window, vog, magnitude in zip(windows, found.vog, found.magnitude):
        np.testing.assert_allclose(vog, _reference.vog(gradients[list(window)], 1), rtol=1e-10, atol=1e-300)
        expected = _reference.mean_abs_gradient(gradients[list(window)], 1).mean(axis=0)
        np.testing.assert_allclose(magnitude, expected, rtol=1e-12)


@pytest.mark.parametrize("window", [[], [7], [-1], [1, 1], [0.5], 3])
def test_windows_that_do_not_fit(window):
    with pytest.raises(SettingsError, match="a window must"):
        on_device.block_score(cuda.to_device(np.zeros((7, 2, 3), np.float32)), windows=[window])


def test_equal_gradients_have_a_score_of_exactly_zero():
    gradients = np.repeat(gradients_like((1, 2, 3, 4), np.float32), 5, axis=0)
    score, _ = on_device.block_score(cuda.to_device(gradients), channel_axis=1)
    assert (score == 0).all()


def test_a_mean_far_from_zero_costs_no_digits():
    rng = np.random.default_rng(5)
    gradients = 1e4 + rng.standard_normal((64, 2, 6))
    score, _ = on_device.block_score(cuda.to_device(gradients))
    np.testing.assert_allclose(score, _reference.vog(gradients), rtol=1e-9)
    gradients[0] = 1e7  # the first checkpoint, which the others are compared with, lies far out
    score, _ = on_device.block_score(cuda.to_device(gradients))
    np.testing.assert_allclose(score, _reference.vog(gradients), rtol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layout", ["none", "mean-of-3-first", "many-first", "wide-l2"])
def test_a_gradient_that_is_not_finite_shows_in_its_example_alone(layout, value):
    shape, axis, channels = LAYOUTS[layout]
    gradients = gradients_like((2, 3, *shape), np.float32)
    gradients[1, 1].reshape(-1)[-1] = value
    with np.errstate(invalid="ignore"):
        _, _, magnitudes = moments(gradients, axis, channels, "float64", cuda.to_device)
        score, magnitude = on_device.block_score(cuda.to_device(gradients), channel_axis=axis, channels=channels)
    assert np.isfinite(magnitudes).tolist() == [[True, True, True], [True, False, True]]
    assert np.isfinite(magnitude).tolist() == [True, False, True]
    assert np.isfinite(score).tolist() == [True, False, True]


def test_results_do_not_depend_on_the_other_examples_and_repeat_bit_for_bit():
    gradients = gradients_like((3, 4, 3, 50), np.float32)
    whole = on_device.block_score(cuda.to_device(gradients), channel_axis=1)
    again = on_device.block_score(cuda.to_device(gradients), channel_axis=1)
    alone = on_device.block_score(cuda.to_device(np.ascontiguousarray(gradients[:, 2:3])), channel_axis=1)
    for first, second, third in zip(whole, again, alone):
        assert first.tobytes() == second.tobytes()
        assert first[2] == third[0]


@pytest.mark.parametrize(("n", "other_n"), [(0, 3), (3, 0), (2, 5)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_merge(n, other_n, dtype):
    rng = np.random.default_rng(3)
    arrays = [rng.random((3, 17)).astype(dtype) for _ in range(4)]
    if n == 0:
        arrays[0][:] = arrays[1][:] = np.nan
    host = [array.copy() for array in arrays]
    there = [cuda.to_device(array) for array in arrays]
    kernels.merge_moments(host[0], host[1], n, host[2], host[3], other_n)
    kernels.merge_moments(there[0], there[1], n, there[2], there[3], other_n)
    for expected, found in zip(host, there):
        np.testing.assert_allclose(found.copy_to_host(), expected, rtol=1e-6 if dtype == "float32" else 1e-14)


def class_cases():
    rng = np.random.default_rng(7)
    scores, classes = rng.random(60), rng.integers(-1, 5, 60)
    yield "random", scores, classes, 7
    yield "equal", np.full(9, 0.1), np.arange(9) % 2, 2
    damaged = scores.copy()
    damaged[[3, 11]] = np.nan, np.inf
    yield "not-finite", damaged, classes, 5
    yield "far", 1e9 + scores, classes, 5
    yield "single", scores[:4], np.array([0, 1, 2, -1]), 4
    yield "nothing", np.zeros(0), np.zeros(0, np.int64), 3
    yield "no-class", scores, np.full(60, -1), 2
    long = rng.standard_normal(2 * (64 if SIMULATED else _cuda_classes.SLICE) + 5)
    yield "three-slices", long, rng.integers(0, 3, long.size).astype(np.int32), 3


@pytest.mark.usefixtures("short_parts")
@pytest.mark.parametrize("case", list(class_cases()), ids=lambda case: case[0])
def test_class_statistics_and_normalised_scores(case):
    _, scores, classes, n_classes = case
    there = cuda.to_device(scores), cuda.to_device(classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = kernels.class_statistics(*there, n_classes)
        expected = kernels.class_statistics(scores, classes, n_classes)
        assert found.count.dtype == expected.count.dtype
        np.testing.assert_array_equal(found.count, expected.count)
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-14)
        np.testing.assert_allclose(found.std, expected.std, rtol=1e-9 if case[0] == "far" else 1e-12)
        np.testing.assert_array_equal(found.std == 0, expected.std == 0)
        for absolute in (False, True):
            z = kernels.normalise(*there, expected.mean, expected.std, absolute=absolute)
            host = kernels.normalise(scores, classes, expected.mean, expected.std, absolute=absolute)
            np.testing.assert_allclose(z, host, rtol=1e-13, atol=1e-300)
        robust = kernels.robust_statistics(*there, n_classes)
        np.testing.assert_array_equal(robust.std, kernels.robust_statistics(scores, classes, n_classes).std)


def test_zero_spread_of_further_classes():
    scores, classes = np.array([1.0, 2.0, 3.0, 5.0]), np.array([0, 0, 1, 1])
    arguments = np.array([1.5, 4.0]), np.array([0.5, 1.0])
    z = kernels.normalise(
        cuda.to_device(scores), cuda.to_device(classes), *arguments, zero_spread=np.array([True, False])
    )
    assert z.tolist() == [0.0, 0.0, -1.0, 1.0]


def test_a_class_out_of_range_is_named():
    classes = np.array([0, 1, 3, 9])
    for function in (
        lambda *there: kernels.class_statistics(*there, 3),
        lambda *there: kernels.normalise(*there, np.zeros(3), np.ones(3)),
    ):
        with pytest.raises(DataError, match="example 2 has class 3, but classes go from 0 to 2"):
            function(cuda.to_device(np.zeros(4)), cuda.to_device(classes))


def device_error(message, function, *args, **kwargs):
    with pytest.raises((GradientError, SettingsError, DataError), match=message) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_arguments_that_do_not_fit():
    gradients = np.zeros((2, 3, 4), np.float32)
    there, mean, m2 = cuda.to_device(gradients), cuda.to_device(np.zeros((2, 4))), cuda.to_device(np.zeros((2, 4)))
    update = kernels.update_moments
    device_error("mean on cpu", update, there, np.zeros((2, 4)), m2, step=1, channel_axis=1)
    device_error("must be a float64 array of shape", update, there, mean, m2, step=1)
    device_error("share memory", update, there, mean, mean, step=1, channel_axis=1)
    device_error("not int32", update, cuda.to_device(np.zeros((2, 4), np.int32)), mean, m2, step=1)
    device_error("step must be", update, there, mean, m2, step=0, channel_axis=1)
    device_error("channels must be", update, there, mean, m2, step=1, channels="max")
    device_error("channel_axis 5", update, there, mean, m2, step=1, channel_axis=5)
    int_moments = cuda.to_device(np.zeros((2, 4), np.int64))
    device_error("not int64", update, there, int_moments, m2, step=1, channel_axis=1)
    device_error("not C-contiguous", update, cuda.to_device(np.zeros((2, 8), np.float32))[:, ::2], mean, m2, step=1)
    device_error("reduction must be", kernels.score_from_moments, m2, 2, reduction="max")
    device_error("n must be", kernels.score_from_moments, m2, 0)
    device_error("m2 must be", kernels.score_from_moments, cuda.to_device(np.zeros(4)), 2)
    device_error("other_m2 on cpu", kernels.merge_moments, mean, m2, 1, mean, np.zeros((2, 4)), 1)
    other = cuda.to_device(np.zeros((2, 5)))
    device_error("other_mean must be", kernels.merge_moments, mean, m2, 1, other, other, 1)
    device_error("leading axes", on_device.block_score, cuda.to_device(np.zeros(3, np.float32)))
    device_error("no checkpoint", on_device.block_score, cuda.to_device(np.zeros((0, 2, 3), np.float32)))
    scores = cuda.to_device(np.zeros(4))
    device_error("same length", kernels.class_statistics, scores, cuda.to_device(np.zeros(3, np.int64)), 2)
    device_error("must be integers", kernels.class_statistics, scores, scores, 2)


def test_no_examples():
    nothing = cuda.to_device(np.zeros((0, 4)))
    assert kernels.update_moments(cuda.to_device(np.zeros((0, 4), np.float32)), nothing, nothing, step=1).shape == (0,)
    assert kernels.score_from_moments(nothing, 2).shape == (0,)


def test_moments_begin_at_the_first_step_whatever_the_memory_holds():
    gradients = gradients_like((1, 2, 5), np.float32)
    mean, m2, _ = moments(gradients, None, "mean", "float64", cuda.to_device)
    np.testing.assert_array_equal(mean.copy_to_host(), gradients[0])
    np.testing.assert_array_equal(m2.copy_to_host(), np.zeros((2, 5)))


def test_new_arrays_and_copies():
    array = kernels.empty((3, 4), "float32", "cuda")
    assert array.shape == (3, 4)
    assert array.dtype == np.float32
    assert kernels.to_host(cuda.to_device(np.arange(3))).tolist() == [0, 1, 2]
