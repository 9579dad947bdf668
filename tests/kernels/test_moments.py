"""Moments and scores against the float64 two-pass oracle."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.errors import GradientError, SettingsError
from vogcore.kernels import _reference as reference
from vogcore.kernels import block_score, merge_moments, pixel_count, score_from_moments, update_moments

CHANNELS = ("mean", "none", "magnitude", "l2")
DTYPES = ("float16", "float32", "float64", "bfloat16")


def as_dtype(values: np.ndarray, dtype: str) -> np.ndarray:
    """``values`` in the given type; bfloat16 as the upper halves of float32."""
    if dtype == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


def moments(gradients, channel_axis=None, channels="mean", dtype=np.float64):
    """Moments and magnitudes of gradients (K, B, ...), from buffers that start as NaN."""
    n_examples = gradients.shape[1]
    n_pixels = pixel_count(gradients.shape[2:], channel_axis, channels)
    mean = np.full((n_examples, n_pixels), np.nan, dtype)
    m2 = np.full((n_examples, n_pixels), np.nan, dtype)
    magnitudes = [
        update_moments(block, mean, m2, step=k, channel_axis=channel_axis, channels=channels)
        for k, block in enumerate(gradients, start=1)
    ]
    return mean, m2, np.array(magnitudes)


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "channel_axis"),
    [
        ((5,), None),
        ((1200,), None),
        ((3, 40, 30), 1),
        ((40, 30, 3), 3),
        ((40, 3, 30), 2),
        ((1, 9, 7), 1),
        ((9, 7, 1), 3),
        ((5, 37, 31), 1),
        ((37, 31, 4), 3),
        ((6, 2, 5, 7), 2),
        ((3,), 1),
        ((), None),
    ],
)
def test_every_layout_mode_and_type_agrees_with_the_oracle(rng, shape, channel_axis, channels, dtype):
    gradients = as_dtype(rng.normal(size=(4, 3, *shape)) + 0.5, dtype)
    mean, m2, magnitudes = moments(gradients, channel_axis, channels)
    expected_mean, expected_m2 = reference.pixel_moments(gradients, channel_axis, channels)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(m2, expected_m2, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(
        magnitudes, reference.mean_abs_gradient(gradients, channel_axis, channels), rtol=1e-12, atol=1e-15
    )
    for reduction in ("std", "var"):
        np.testing.assert_allclose(
            score_from_moments(m2, len(gradients), reduction=reduction),
            reference.vog(gradients, channel_axis, channels, reduction),
            rtol=1e-11,
            atol=1e-14,
        )


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=0, max_size=4),
    n_examples=st.integers(0, 5),
    n_checkpoints=st.integers(1, 6),
    channels=st.sampled_from(CHANNELS),
    dtype=st.sampled_from(DTYPES),
    data=st.data(),
)
def test_any_shape_agrees_with_the_oracle(shape, n_examples, n_checkpoints, channels, dtype, data):
    channel_axis = data.draw(st.sampled_from([None, *range(1, len(shape) + 1)]))
    scale = data.draw(st.sampled_from([1e-3, 1.0, 1e3]))
    values = np.random.default_rng(data.draw(st.integers(0, 99))).normal(
        size=(n_checkpoints, n_examples, *shape), scale=scale
    )
    gradients = as_dtype(values, dtype)
    mean, m2, magnitudes = moments(gradients, channel_axis, channels)
    expected_mean, expected_m2 = reference.pixel_moments(gradients, channel_axis, channels)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-12, atol=1e-12 * scale)
    np.testing.assert_allclose(m2, expected_m2, rtol=1e-10, atol=1e-12 * scale**2)
    np.testing.assert_allclose(
        magnitudes, reference.mean_abs_gradient(gradients, channel_axis, channels), rtol=1e-12, atol=1e-12 * scale
    )


@pytest.mark.parametrize("n_checkpoints", [1, 2, 10, 1000])
def test_a_mean_far_above_the_spread_does_not_cost_accuracy(rng, n_checkpoints):
    gradients = (1e4 + rng.normal(size=(n_checkpoints, 2, 3, 8, 8))).astype(np.float32)
    _, m2, _ = moments(gradients, 1)
    _, expected = reference.pixel_moments(gradients, 1)
    # One unit in the last place of a float64 near 1e4 is 1.8e-12: no order of summation can do better.
    np.testing.assert_allclose(np.sqrt(m2 / n_checkpoints), np.sqrt(expected / n_checkpoints), rtol=0, atol=4e-12)
    np.testing.assert_allclose(score_from_moments(m2, n_checkpoints), reference.vog(gradients, 1), rtol=0, atol=2e-12)


def test_float32_moments_keep_three_digits_where_the_mean_is_far_above_the_spread(rng):
    gradients = (1e4 + rng.normal(size=(1000, 2, 3, 8, 8))).astype(np.float32)
    mean, m2, magnitudes = moments(gradients, 1, dtype=np.float32)
    assert mean.dtype == m2.dtype == np.float32
    np.testing.assert_allclose(np.sqrt(m2), np.sqrt(reference.pixel_moments(gradients, 1)[1]), rtol=1e-3)
    np.testing.assert_allclose(magnitudes, reference.mean_abs_gradient(gradients, 1), rtol=1e-12)


def test_float32_moments_agree_with_the_oracle_for_ordinary_gradients(rng):
    gradients = rng.normal(size=(20, 4, 40, 30, 3)).astype(np.float32)
    mean, m2, _ = moments(gradients, 3, dtype=np.float32)
    expected_mean, expected_m2 = reference.pixel_moments(gradients, 3)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(m2, expected_m2, rtol=1e-5)
    np.testing.assert_allclose(score_from_moments(m2, 20), reference.vog(gradients, 3), rtol=1e-6)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("scale", [1e-45, 1e-40, 1e-30, 1e30, 1e38])
def test_subnormal_tiny_and_huge_float32_gradients(rng, scale, channels):
    gradients = (rng.uniform(-3.0, 3.0, size=(5, 3, 3, 8, 8)) * scale).astype(np.float32)
    assert np.isfinite(gradients).all()
    assert gradients.any()
    _, m2, magnitudes = moments(gradients, 1, channels)
    np.testing.assert_allclose(score_from_moments(m2, 5), reference.vog(gradients, 1, channels), rtol=1e-12)
    np.testing.assert_allclose(magnitudes, reference.mean_abs_gradient(gradients, 1, channels), rtol=1e-12)


def test_equal_gradients_have_exactly_no_spread(rng):
    gradients = np.repeat(rng.normal(size=(1, 3, 3, 8, 8)).astype(np.float32), 7, axis=0)
    _, m2, _ = moments(gradients, 1)
    np.testing.assert_array_equal(m2, 0.0)
    np.testing.assert_array_equal(score_from_moments(m2, 7), 0.0)


def test_every_16_bit_pattern_is_decoded_exactly():
    bits = np.arange(65536, dtype=np.uint16)
    with np.errstate(invalid="ignore"):  # signalling NaNs are among the patterns
        from_bfloat16 = (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        from_float16 = bits.view(np.float16).astype(np.float64)
    for gradients, expected in ((bits, from_bfloat16), (bits.view(np.float16), from_float16)):
        block = np.ascontiguousarray(gradients.reshape(65536, 1))
        mean = np.empty((65536, 1))
        magnitude = update_moments(block, mean, np.empty((65536, 1)), step=1)
        np.testing.assert_array_equal(mean[:, 0], expected)
        np.testing.assert_array_equal(magnitude, np.abs(expected))


def test_float16_where_the_processor_is_not_known_to_convert_it(rng, tmp_path):
    program = (
        "import sys, numpy as np\n"
        "from vogcore import kernels\n"
        "from vogcore.kernels import _jit\n"
        "assert not _jit._CONVERTS_FLOAT16\n"
        "gradients = np.load(sys.argv[1])\n"
        "mean, m2 = np.empty((2, 5, 40))\n"
        "kernels.update_moments(gradients[0], mean, m2, step=1, channel_axis=1)\n"
        "np.savez(sys.argv[2], mean=mean, vog=kernels.block_score(gradients, channel_axis=2).vog)\n"
    )
    gradients = rng.normal(size=(3, 5, 3, 40)).astype(np.float16)
    np.save(tmp_path / "gradients.npy", gradients)
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", program, tmp_path / "gradients.npy", tmp_path / "found.npz"]
    subprocess.run(command, env=environment, timeout=300, check=True)
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_allclose(found["mean"], gradients[0].mean(axis=1, dtype=np.float64), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found["vog"], block_score(gradients, channel_axis=2).vog, rtol=1e-12)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "channel_axis"), [((3, 40, 40), 1), ((40, 40, 3), 3), ((4, 40, 40), 1), ((1600,), None)]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_magnitude_is_not_finite_exactly_where_a_gradient_is_not(rng, shape, channel_axis, channels, dtype, bad):
    values = rng.normal(size=(7, *shape))
    flat = values.reshape(7, -1)
    flat[2, 0] = flat[4, flat.shape[1] // 2] = flat[5, -1] = bad
    flat[5, 0] = -bad  # inf and -inf, far apart
    if channel_axis is not None:
        np.moveaxis(values, channel_axis, 1)[6, :2, 3, 3] = (bad, -bad)  # inf and -inf in one mean
    else:
        flat[6, 9] = bad
    gradients = as_dtype(values, dtype)
    n_pixels = pixel_count(shape, channel_axis, channels)
    for step in (1, 2):
        mean, m2 = np.zeros((2, 7, n_pixels))
        magnitude = update_moments(gradients, mean, m2, step=step, channel_axis=channel_axis, channels=channels)
        np.testing.assert_array_equal(np.isfinite(magnitude), [True, True, False, True, False, False, False])
        np.testing.assert_array_equal(np.isfinite(score_from_moments(m2, 2)), np.isfinite(magnitude))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("channels", CHANNELS)
def test_the_largest_finite_gradients_are_not_taken_for_infinite(channels, dtype):
    gradients = np.full((2, 3, 40, 40), np.finfo(dtype).max, dtype)
    gradients[1] *= -1
    n_pixels = pixel_count((3, 40, 40), 1, channels)
    magnitude = update_moments(
        gradients, np.empty((2, n_pixels)), np.empty((2, n_pixels)), step=1, channel_axis=1, channels=channels
    )
    expected = float(np.finfo(dtype).max) * (np.sqrt(3) if channels == "l2" else 1)
    np.testing.assert_allclose(magnitude, expected, rtol=1e-12)


def test_float64_sums_that_overflow_are_infinite_as_documented():
    gradients = np.full((1, 3, 4), 1e308)
    magnitude = update_moments(gradients, np.empty((1, 4)), np.empty((1, 4)), step=1, channel_axis=1)
    assert np.isinf(magnitude).all()
    gradients = np.full((1, 3, 4), 1e200)
    mean, m2 = np.empty((1, 4)), np.empty((1, 4))
    assert np.isfinite(update_moments(gradients, mean, m2, step=1, channel_axis=1)).all()
    assert np.isinf(update_moments(gradients, mean, m2, step=1, channel_axis=1, channels="l2")).all()


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
    gradients = as_dtype(np.random.default_rng(seed).normal(size=(3, n_examples, 3, 20, 31)), dtype)
    mean, m2, magnitudes = moments(gradients, channel_axis, channels)
    scores = score_from_moments(m2, 3)
    order = np.array(data.draw(st.permutations(range(n_examples))))
    cuts = sorted(data.draw(st.sets(st.integers(1, n_examples - 1))))
    for part in np.split(order, cuts):
        part_mean, part_m2, part_magnitudes = moments(gradients[:, part], channel_axis, channels)
        np.testing.assert_array_equal(part_mean, mean[part])
        np.testing.assert_array_equal(part_m2, m2[part])
        np.testing.assert_array_equal(part_magnitudes, magnitudes[:, part])
        np.testing.assert_array_equal(score_from_moments(part_m2, 3), scores[part])


def test_order_of_checkpoints_changes_rounding_only(rng):
    gradients = rng.normal(size=(12, 4, 3, 16, 16)).astype(np.float32)
    _, m2, _ = moments(gradients, 1)
    _, reversed_m2, _ = moments(gradients[::-1], 1)
    np.testing.assert_allclose(reversed_m2, m2, rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_read_only_unaligned_and_foreign_byte_order_give_the_same_bits(rng, dtype):
    gradients = as_dtype(rng.normal(size=(4, 6, 5, 3)), dtype)
    expected = moments(gradients[None], 3)[0]
    read_only = gradients.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"x" + gradients.tobytes(), gradients.dtype, offset=1).reshape(gradients.shape)
    wide = np.zeros((4, 6, 10, 3), gradients.dtype)
    wide[:, :, ::2] = gradients
    variants = {
        "fortran order": np.asfortranarray(gradients),
        "read only": read_only,
        "unaligned": unaligned,
        "strided": wide[:, :, ::2],
        "other byte order": gradients.astype(gradients.dtype.newbyteorder(">")),
    }
    for name, variant in variants.items():
        before = variant.copy()
        np.testing.assert_array_equal(moments(variant[None], 3)[0], expected, err_msg=name)
        np.testing.assert_array_equal(variant, before, err_msg=name)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    n=st.integers(0, 7),
    other_n=st.integers(0, 7),
    offset=st.sampled_from([0.0, 1e4]),
    dtype=st.sampled_from([np.float64, np.float32]),
)
def test_merged_windows_equal_the_whole(seed, n, other_n, offset, dtype):
    gradients = (np.random.default_rng(seed).normal(size=(max(1, n + other_n), 3, 3, 7, 5)) + offset).astype(np.float32)
    mean, m2, _ = moments(gradients[:n], 1, dtype=dtype)
    other_mean, other_m2, _ = moments(gradients[n : n + other_n], 1, dtype=dtype)
    kept = other_mean.copy(), other_m2.copy()
    merge_moments(mean, m2, n, other_mean, other_m2, other_n)
    np.testing.assert_array_equal(other_mean, kept[0])
    np.testing.assert_array_equal(other_m2, kept[1])
    if n + other_n == 0:
        assert np.isnan(mean).all()
        return
    expected_mean, expected_m2 = reference.pixel_moments(gradients, 1)
    tolerance = 1e-11 if dtype == np.float64 else (1e-5 if offset == 0 else 2e-2)
    np.testing.assert_allclose(mean, expected_mean, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(m2, expected_m2, rtol=tolerance, atol=tolerance)


def test_merging_thirds_of_a_large_block_equals_the_whole(rng):
    gradients = rng.normal(size=(9, 40, 3, 64, 64)).astype(np.float32)
    mean, m2, _ = moments(gradients[:3], 1)
    for start in (3, 6):
        merge_moments(mean, m2, start, *moments(gradients[start : start + 3], 1)[:2], 3)
    np.testing.assert_allclose(score_from_moments(m2, 9), reference.vog(gradients, 1), rtol=1e-13)


@pytest.mark.parametrize(
    ("shape", "channel_axis", "channels", "expected"),
    [
        ((3, 32, 32), 1, "mean", 1024),
        ((32, 32, 3), 3, "l2", 1024),
        ((32, 3, 32), 2, "magnitude", 1024),
        ((3, 32, 32), 1, "none", 3072),
        ((3, 32, 32), None, "mean", 3072),
        ((), None, "mean", 1),
    ],
)
def test_pixel_count(shape, channel_axis, channels, expected):
    assert pixel_count(shape, channel_axis, channels) == expected


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"channels": "sum"}, SettingsError, "channels must be one of"),
        ({"channel_axis": 0}, SettingsError, "channel_axis 0 does not exist"),
        ({"channel_axis": 4}, SettingsError, "from 1 .* to 3"),
        ({"channel_axis": -1}, SettingsError, "channel_axis -1"),
        ({"step": 0}, SettingsError, "step must be an integer of at least 1, not 0"),
        ({"step": 2.0}, SettingsError, "not 2.0"),
        ({"gradients": np.zeros((2, 3, 4, 4), np.int32)}, GradientError, "not int32"),
        ({"gradients": np.zeros((2, 3, 4, 4), np.complex64)}, GradientError, "not complex64"),
        ({"gradients": np.zeros((2, 3, 4, 4), bool)}, GradientError, "not bool"),
        ({"gradients": np.float32(1)}, GradientError, "batch axis"),
        ({"gradients": np.zeros((2, 3, 0, 4), np.float32)}, GradientError, "hold no values"),
        ({"gradients": np.zeros((2, 3, 4, 5), np.float32)}, GradientError, r"shape \(2, 20\)"),
        ({"mean": np.zeros((2, 16), np.float16)}, GradientError, "float64 or float32"),
        ({"mean": [[0.0] * 16] * 2}, GradientError, "float64 or float32"),
        ({"m2": np.zeros((2, 16), np.float32)}, GradientError, "m2 must be a float64 array"),
        ({"m2": np.zeros((3, 16))}, GradientError, r"m2 .* \(3, 16\)"),
        ({"m2": np.zeros((16, 2)).T}, GradientError, "m2 is updated in place"),
        ({"mean": np.broadcast_to(0.0, (2, 16))}, GradientError, "mean is updated in place"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, error, message):
    arguments = {
        "gradients": np.zeros((2, 3, 4, 4), np.float32),
        "mean": np.zeros((2, 16)),
        "m2": np.zeros((2, 16)),
        "step": 1,
        "channel_axis": 1,
        **changes,
    }
    with pytest.raises(error, match=message):
        update_moments(**arguments)


def test_moments_that_overlap_are_refused():
    buffer = np.zeros((2, 16))
    with pytest.raises(GradientError, match="share memory"):
        update_moments(np.zeros((2, 16), np.float32), buffer, buffer, step=1)


def test_merge_and_score_refuse_what_does_not_fit():
    one, other = np.zeros((2, 2, 4)), np.zeros((2, 2, 4))
    with pytest.raises(SettingsError, match="other_n must be an integer of at least 0"):
        merge_moments(*one, 1, *other, -1)
    with pytest.raises(GradientError, match="other_m2 must be float64"):
        merge_moments(*one, 1, other[0], other[1].astype(np.float32), 1)
    with pytest.raises(GradientError, match="examples, pixels"):
        merge_moments(one[0, 0], one[1, 0], 1, other[0, 0], other[1, 0], 1)
    with pytest.raises(SettingsError, match="reduction must be std or var, not 'sd'"):
        score_from_moments(one[0], 1, reduction="sd")
    with pytest.raises(SettingsError, match="n must be an integer of at least 1"):
        score_from_moments(one[0], 0)
    with pytest.raises(GradientError, match="m2 must be float64 or float32"):
        score_from_moments(np.zeros(4), 1)
