"""The score of a whole block against the float64 two-pass oracle and against the streaming moments."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vogcore.kernels
from vogcore.errors import GradientError, SettingsError
from vogcore.kernels import _reference as reference
from vogcore.kernels import block_score, pixel_count, score_from_moments, set_threads, update_moments

CHANNELS = ("mean", "none", "magnitude", "l2")
DTYPES = ("float16", "float32", "float64", "bfloat16")
SOURCE_ROOT = Path(vogcore.kernels.__file__).parents[2]


@pytest.fixture
def rng():
    return np.random.default_rng(41)


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    set_threads(None)


def as_dtype(values: np.ndarray, dtype: str) -> np.ndarray:
    """``values`` in the given type; bfloat16 as the upper halves of float32."""
    if dtype == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


def exact_std(values: np.ndarray) -> float:
    """Mean over P of the population standard deviation of values (K, P), with sums that are rounded once."""
    k = len(values)
    spreads = []
    for column in values.T.tolist():
        mean = math.fsum(column) / k
        shift = math.fsum(v - mean for v in column) / k
        spreads.append(math.sqrt(math.fsum((v - mean - shift) ** 2 for v in column) / k))
    return math.fsum(spreads) / len(spreads)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "channel_axis"),
    [
        ((1300,), None),
        ((3, 40, 30), 1),
        ((40, 30, 3), 3),
        ((7, 3, 50), 2),
        ((5, 37, 31), 1),
        ((37, 31, 4), 3),
        ((6, 2, 5, 7), 2),
        ((), None),
    ],
)
def test_every_layout_mode_and_type_agrees_with_the_oracle(rng, shape, channel_axis, channels, dtype):
    gradients = as_dtype(rng.normal(size=(12, 3, *shape)) + 0.5, dtype)
    for k in (1, 2, 3, 4, 5, 6, 10, 12):
        for reduction in ("std", "var"):
            found = block_score(gradients[:k], channel_axis=channel_axis, channels=channels, reduction=reduction)
            expected = reference.vog(gradients[:k], channel_axis, channels, reduction)
            np.testing.assert_allclose(found.vog, expected, rtol=1e-12, atol=1e-15)
            magnitude = reference.mean_abs_gradient(gradients[:k], channel_axis, channels).mean(axis=0)
            np.testing.assert_allclose(found.magnitude, magnitude, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=0, max_size=4),
    n_examples=st.integers(0, 5),
    n_checkpoints=st.integers(1, 17),
    channels=st.sampled_from(CHANNELS),
    dtype=st.sampled_from(DTYPES),
    data=st.data(),
)
def test_any_shape_and_any_windows_agree_with_the_oracle(shape, n_examples, n_checkpoints, channels, dtype, data):
    channel_axis = data.draw(st.sampled_from([None, *range(1, len(shape) + 1)]))
    scale = data.draw(st.sampled_from([1e-3, 1.0, 1e3]))
    window = st.lists(st.integers(0, n_checkpoints - 1), min_size=1, unique=True)
    windows = data.draw(st.lists(window, min_size=1, max_size=4))
    values = np.random.default_rng(data.draw(st.integers(0, 99))).normal(
        size=(n_checkpoints, n_examples, *shape), scale=scale
    )
    gradients = as_dtype(values, dtype)
    found = block_score(gradients, channel_axis=channel_axis, channels=channels, windows=windows)
    assert found.vog.shape == found.magnitude.shape == (len(windows), n_examples)
    for vog, magnitude, chosen in zip(found.vog, found.magnitude, windows, strict=True):
        part = gradients[sorted(chosen)]
        np.testing.assert_allclose(vog, reference.vog(part, channel_axis, channels), rtol=1e-11, atol=1e-14 * scale)
        expected = reference.mean_abs_gradient(part, channel_axis, channels).mean(axis=0)
        np.testing.assert_allclose(magnitude, expected, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    n_checkpoints=st.integers(2, 40),
    offset=st.sampled_from([0.0, 1.0, 1e4]),
    outlier=st.sampled_from([0.0, 1e3, 1e6]),
    at=st.integers(0, 39),
)
def test_neither_a_large_mean_nor_an_outlier_costs_more_than_the_bound(seed, n_checkpoints, offset, outlier, at):
    gradients = np.random.default_rng(seed).normal(size=(n_checkpoints, 1, 40)) + offset
    gradients[at % n_checkpoints] += outlier  # the first checkpoint, from which differences are taken, among them
    expected = exact_std(gradients[:, 0])
    np.testing.assert_allclose(block_score(gradients).vog[0], expected, rtol=4 * n_checkpoints * 2.0**-52)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("scale", [1e-45, 1e-40, 1e-30, 1e30, 1e38])
def test_subnormal_tiny_and_huge_float32_gradients(rng, scale, channels):
    gradients = (rng.uniform(-3.0, 3.0, size=(7, 3, 3, 8, 8)) * scale).astype(np.float32)
    assert np.isfinite(gradients).all()
    assert gradients.any()
    found = block_score(gradients, channel_axis=1, channels=channels)
    np.testing.assert_allclose(found.vog, reference.vog(gradients, 1, channels), rtol=1e-12)
    magnitude = reference.mean_abs_gradient(gradients, 1, channels).mean(axis=0)
    np.testing.assert_allclose(found.magnitude, magnitude, rtol=1e-12)


def test_equal_gradients_have_exactly_no_spread(rng):
    gradients = np.repeat(rng.normal(size=(1, 3, 3, 8, 8)).astype(np.float32), 13, axis=0)
    windows = [range(13), range(5), range(5, 13)]
    np.testing.assert_array_equal(block_score(gradients, channel_axis=1, windows=windows).vog, 0.0)
    np.testing.assert_array_equal(block_score(gradients, channel_axis=1).vog, 0.0)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "channel_axis"), [((3, 40, 40), 1), ((40, 40, 3), 3), ((1600,), None)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_results_are_not_finite_exactly_where_a_gradient_is_not(rng, shape, channel_axis, channels, dtype, bad):
    values = rng.normal(size=(9, 6, *shape))
    flat = values.reshape(9, 6, -1)
    flat[0, 1, 0] = flat[4, 2, flat.shape[2] // 2] = flat[8, 4, -1] = flat[2, 5, 7] = bad
    flat[3, 5, 7] = -bad
    gradients = as_dtype(values, dtype)
    windows = [range(9), range(4), range(4, 9)]
    found = block_score(gradients, channel_axis=channel_axis, channels=channels, windows=windows)
    finite = [
        [True, False, False, True, False, False],
        [True, False, True, True, True, False],
        [True, True, False, True, False, True],
    ]
    np.testing.assert_array_equal(np.isfinite(found.vog), finite)
    np.testing.assert_array_equal(np.isfinite(found.magnitude), finite)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    channel_axis=st.sampled_from([None, 1, 2, 3]),
    channels=st.sampled_from(CHANNELS),
    dtype=st.sampled_from(DTYPES),
    data=st.data(),
)
def test_blocks_and_order_of_examples_do_not_change_a_bit(seed, channel_axis, channels, dtype, data):
    n_examples = 9
    gradients = as_dtype(np.random.default_rng(seed).normal(size=(7, n_examples, 3, 23, 61)), dtype)
    windows = data.draw(st.sampled_from([None, [range(7), range(3), range(3, 7)]]))
    whole = block_score(gradients, channel_axis=channel_axis, channels=channels, windows=windows)
    order = np.array(data.draw(st.permutations(range(n_examples))))
    cuts = sorted(data.draw(st.sets(st.integers(1, n_examples - 1))))
    for part in np.split(order, cuts):
        found = block_score(gradients[:, part], channel_axis=channel_axis, channels=channels, windows=windows)
        np.testing.assert_array_equal(found.vog, whole.vog[..., part])
        np.testing.assert_array_equal(found.magnitude, whole.magnitude[..., part])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("shape", "channel_axis"), [((24, 3, 70, 70), 1), ((1, 400, 400, 3), 3), ((40, 5, 60, 60), 1)])
def test_any_number_of_threads_gives_the_same_bits(rng, shape, channel_axis, dtype):
    gradients = as_dtype(rng.normal(size=(6, *shape)), dtype)
    windows = [range(6), range(2), range(2, 6)]
    set_threads(1)
    expected = block_score(gradients, channel_axis=channel_axis, windows=windows)
    for n in (2, 3, 8):
        set_threads(n)
        found = block_score(gradients, channel_axis=channel_axis, windows=windows)
        np.testing.assert_array_equal(found.vog, expected.vog)
        np.testing.assert_array_equal(found.magnitude, expected.magnitude)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_arrangement_in_memory_gives_the_same_bits(rng, dtype):
    gradients = as_dtype(rng.normal(size=(4, 6, 5, 3)), dtype)
    expected = block_score(gradients, channel_axis=2).vog
    read_only = gradients.copy()
    read_only.flags.writeable = False
    wider = np.zeros((4, 20, 5, 3), gradients.dtype)
    wider[:, 7:13] = gradients
    spaced = np.zeros((4, 6, 10, 3), gradients.dtype)
    spaced[:, :, ::2] = gradients
    variants = {
        "part of a larger array": wider[:, 7:13],
        "fortran order": np.asfortranarray(gradients),
        "read only": read_only,
        "unaligned": np.frombuffer(b"x" + gradients.tobytes(), gradients.dtype, offset=1).reshape(gradients.shape),
        "backwards in memory": np.ascontiguousarray(gradients[::-1])[::-1],
        "strided": spaced[:, :, ::2],
        "other byte order": gradients.astype(gradients.dtype.newbyteorder(">")),
    }
    for name, variant in variants.items():
        before = variant.copy()
        np.testing.assert_array_equal(block_score(variant, channel_axis=2).vog, expected, err_msg=name)
        np.testing.assert_array_equal(variant, before, err_msg=name)
    repeated = np.broadcast_to(gradients[0], (5, 6, 5, 3))
    np.testing.assert_array_equal(block_score(repeated, channel_axis=2).vog, 0.0)


def test_arrays_of_ml_dtypes_count_as_bfloat16(rng):
    values = rng.normal(size=(4, 2, 30)).astype(ml_dtypes.bfloat16)
    found = block_score(values)
    np.testing.assert_array_equal(found.vog, block_score(values.view(np.uint16)).vog)
    np.testing.assert_allclose(found.vog, reference.vog(values), rtol=1e-12)


@pytest.mark.parametrize("reduction", ["std", "var"])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_streaming_moments_give_the_same_scores_to_rounding(rng, reduction, offset):
    gradients = (rng.normal(size=(25, 4, 3, 33, 33)) + offset).astype(np.float32)
    mean, m2 = np.empty((2, 4, pixel_count((3, 33, 33), 1, "mean")))
    magnitude = np.mean([update_moments(g, mean, m2, step=k, channel_axis=1) for k, g in enumerate(gradients, 1)], 0)
    found = block_score(gradients, channel_axis=1, reduction=reduction)
    np.testing.assert_allclose(found.vog, score_from_moments(m2, 25, reduction=reduction), rtol=1e-12)
    np.testing.assert_allclose(found.magnitude, magnitude, rtol=1e-13)


@pytest.mark.parametrize(
    ("gradients", "changes", "error", "message"),
    [
        (np.zeros((2, 3, 4), np.int32), {}, GradientError, "not int32"),
        (np.zeros(4, np.float32), {}, GradientError, r"not shape \(4,\)"),
        (np.zeros((0, 3, 4), np.float32), {}, GradientError, "at least one checkpoint"),
        (np.zeros((2, 3, 0), np.float32), {}, GradientError, "hold no values"),
        (np.zeros((2, 3, 4), np.float32), {"reduction": "mad"}, SettingsError, "std or var, not 'mad'"),
        (np.zeros((2, 3, 4), np.float32), {"channels": "sum"}, SettingsError, "channels must be one of"),
        (np.zeros((2, 3, 4), np.float32), {"channel_axis": 2}, SettingsError, "channel_axis 2 does not exist"),
        (np.zeros((2, 3, 4), np.float32), {"windows": []}, SettingsError, "no window"),
        (np.zeros((2, 3, 4), np.float32), {"windows": [[]]}, SettingsError, "at least one checkpoint index"),
        (np.zeros((2, 3, 4), np.float32), {"windows": [[0.0]]}, SettingsError, "at least one checkpoint index"),
        (np.zeros((2, 3, 4), np.float32), {"windows": [[0, 2]]}, SettingsError, "outside of 0 to 1"),
        (np.zeros((2, 3, 4), np.float32), {"windows": [[-1]]}, SettingsError, "outside of 0 to 1"),
        (np.zeros((2, 3, 4), np.float32), {"windows": [[0, 0]]}, SettingsError, "twice"),
    ],
)
def test_what_cannot_be_scored_is_refused(gradients, changes, error, message):
    with pytest.raises(error, match=message):
        block_score(gradients, **changes)


def test_block_scores_also_run_uncompiled():
    code = """
import numpy as np
from vogcore.kernels import block_score
g = np.random.default_rng(0).normal(size=(7, 2, 3, 12))
for axis, dtype in ((1, "f2"), (1, "f4"), (None, "f8")):
    x = g.astype(dtype)
    s = x.astype("f8").mean(axis=2) if axis else x.reshape(7, 2, 36)
    found = block_score(x, channel_axis=axis, windows=[range(7), range(3)])
    assert np.allclose(found.vog[0], s.std(axis=0).mean(axis=1), rtol=1e-12)
    assert np.allclose(found.vog[1], s[:3].std(axis=0).mean(axis=1), rtol=1e-12)
print("good")
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCE_ROOT), "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.stdout.strip() == "good", result.stderr
