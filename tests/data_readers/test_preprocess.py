"""Preprocess against plain NumPy in float64, and the settings it refuses."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.data import Preprocess, open_source
from vogcore.data.preprocess import LAYOUTS
from vogcore.errors import DataError, SettingsError

numbers = st.floats(-3, 3, width=32).filter(lambda v: v == 0 or abs(v) > 1e-3)
positive = st.floats(2**-6, 3, width=32)


def rearranged(x: np.ndarray, layout: str | None) -> np.ndarray:
    return {
        None: lambda: x,
        "nhwc->nchw": lambda: np.moveaxis(x, 3, 1),
        "nchw->nhwc": lambda: np.moveaxis(x, 1, 3),
        "nhw->nchw": lambda: x[:, None],
        "nhw->nhwc": lambda: x[..., None],
        "flatten": lambda: x.reshape(len(x), math.prod(x.shape[1:])),
    }[layout]()


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_agrees_with_float64(data: st.DataObject) -> None:
    layout = data.draw(st.sampled_from([None, *LAYOUTS]))
    rank = {"nhwc->nchw": 4, "nchw->nhwc": 4, "nhw->nchw": 3, "nhw->nhwc": 3}.get(
        layout, data.draw(st.integers(1, 5), label="rank")
    )
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=rank, max_size=rank), label="shape"))
    axis = None
    if rank == 2:
        axis = 1
    elif layout in ("nhwc->nchw", "nchw->nhwc"):
        axis = 3 if layout == "nhwc->nchw" else 1
    elif rank == 4 and (shape[1] <= 4 or shape[3] <= 4):
        axis = 1 if shape[1] <= 4 else 3
    count = shape[axis] if axis is not None and data.draw(st.booleans(), label="by channel") else 1
    scale = data.draw(st.none() | positive, label="scale")
    mean = data.draw(st.none() | st.lists(numbers, min_size=count, max_size=count), label="mean")
    std = data.draw(st.none() | st.lists(positive, min_size=count, max_size=count), label="std")
    x = np.random.default_rng(0).integers(0, 255, shape).astype(data.draw(st.sampled_from(["u1", "f4", "f8"])))
    before = x.copy()

    along = [-1 if at == axis else 1 for at in range(rank)] if count > 1 else [1] * rank
    expected = x.astype(np.float64) * (1 if scale is None else scale)
    expected = (expected - (0 if mean is None else np.reshape(mean, along))) / (
        1 if std is None else np.reshape(std, along)
    )
    preprocess = Preprocess(scale, mean, std, layout)
    result = preprocess.apply(x)
    # Rounding is relative to the largest term of the difference, not to the difference.
    size = (float(np.abs(x).max(initial=1)) * (scale or 1) + 3) / min(std or [1])
    np.testing.assert_allclose(result, rearranged(expected, layout), rtol=0, atol=4 * np.finfo(np.float32).eps * size)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert result.shape[1:] == preprocess.output_shape(shape[1:])
    np.testing.assert_array_equal(x, before)
    assert not np.shares_memory(result, x)

    source = open_source(x, np.zeros(len(x), int), preprocess=preprocess)
    assert (source.shape, source.dtype) == (result.shape[1:], np.float32)
    middle = len(x) // 2
    np.testing.assert_array_equal(np.concatenate([source.read(0, middle), source.read(middle, len(x))]), result)
    assert Preprocess(**json.loads(json.dumps(preprocess.to_dict()))) == preprocess


def test_channels_are_found_by_layout_before_size() -> None:
    mean = [1.0, 2.0, 3.0]
    x = np.zeros((1, 3, 5, 3), np.float32)
    np.testing.assert_array_equal(Preprocess(mean=mean).apply(x)[0, :, 0, 0], [-1, -2, -3])
    last = Preprocess(mean=mean, layout="nhwc->nchw").apply(x)
    np.testing.assert_array_equal(last[0, :, 0, 0], [-1, -2, -3])
    assert last.shape == (1, 3, 3, 5)
    np.testing.assert_array_equal(Preprocess(mean=mean).apply(np.zeros((1, 8, 8, 3)))[0, 0, 0], [-1, -2, -3])
    many = list(range(6))
    np.testing.assert_array_equal(Preprocess(mean=many).apply(np.zeros((1, 6, 8, 8)))[0, :, 0, 0], -np.arange(6.0))
    np.testing.assert_array_equal(Preprocess(mean=many).apply(np.zeros((1, 8, 8, 6)))[0, 0, 0], -np.arange(6.0))
    with pytest.raises(DataError, match="not clear which axis"):
        Preprocess(mean=many).apply(np.zeros((1, 6, 8, 6)))
    with pytest.raises(DataError, match="not clear which axis"):
        Preprocess(mean=many).apply(np.zeros((1, 8, 8, 8)))


@pytest.mark.parametrize(
    ("preprocess", "shape", "message"),
    [
        (Preprocess(layout="nhwc->nchw"), (28, 28), r"needs examples with 3 axes and these have shape \(28, 28\)"),
        (Preprocess(layout="nhw->nchw"), (3, 28, 28), "needs examples with 2 axes"),
        (Preprocess(mean=[1, 2, 3]), (1, 28, 28), r"3 values and examples of shape \(1, 28, 28\) have 1 channels"),
        (Preprocess(mean=[1, 2, 3]), (28, 28), "have no channels"),
        (Preprocess(std=[1, 2, 3]), (4,), "have 4 channels"),
    ],
)
def test_data_that_does_not_fit_is_found_when_opened(preprocess: Preprocess, shape: tuple, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(np.zeros((2, *shape)), [0, 1], preprocess=preprocess)


def test_parse() -> None:
    parsed = Preprocess.parse(scale="1/255", mean="0.49, 0.48,1/2", std="0.2", layout=" NHWC->NCHW ")
    assert parsed == Preprocess(1 / 255, (0.49, 0.48, 0.5), 0.2, "nhwc->nchw")
    assert parsed is not None
    assert parsed.to_dict() == {"scale": 1 / 255, "mean": [0.49, 0.48, 0.5], "std": 0.2, "layout": "nhwc->nchw"}
    assert Preprocess.parse() is None
    assert Preprocess.parse(scale=2, mean=0.5) == Preprocess(2.0, 0.5)
    assert Preprocess(mean=np.array([1.0])) == Preprocess(mean=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": "a lot"}, "scale 'a lot' is not a number"),
        ({"scale": "1/0"}, "is not a number"),
        ({"scale": "1/2/3"}, "is not a number"),
        ({"scale": ""}, "is not a number"),
        ({"scale": "nan"}, "not a finite"),
        ({"scale": "1e39"}, "not a finite"),
        ({"scale": "1e-60"}, "not a finite"),
        ({"scale": "0"}, "scale is 0"),
        ({"mean": "0.1,,0.2"}, "mean '' is not a number"),
        ({"mean": "inf"}, "not a finite"),
        ({"std": "0"}, "std must be positive"),
        ({"std": "0.1,0,0.2"}, "std must be positive"),
        ({"std": "-1"}, "std must be positive"),
        ({"mean": "1,2,3", "std": "1,2"}, "mean has 3 values and std has 2"),
        ({"layout": "chwn"}, "layout 'chwn' is unknown: choose one of nhwc->nchw"),
    ],
)
def test_parse_refuses(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Preprocess.parse(**arguments)


def test_the_class_refuses_too() -> None:
    for arguments in ({"mean": []}, {"mean": [[1.0]]}, {"std": [1.0, None]}, {"scale": [1.0]}, {"layout": "nchw"}):
        with pytest.raises(SettingsError):
            Preprocess(**arguments)
