"""``tf.data`` as a source: its protocol on a stand-in here, real pipelines where TensorFlow is installed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vogcore.errors import DataError
from vogcore_adapters.tf_data import open_dataset

ROOT = Path(__file__).parents[2]
X = np.arange(40 * 6, dtype=np.float32).reshape(40, 2, 3)
Y = np.arange(40) % 4


class Pipeline:
    """The two methods of ``tf.data.Dataset`` that are used; counts its iterations."""

    def __init__(self, elements, cardinality=None):
        self.elements, self.size, self.iterations, self.taken = elements, cardinality, 0, 0

    def cardinality(self):
        return np.int64(len(self.elements()) if self.size is None else self.size)

    def as_numpy_iterator(self):
        self.iterations += 1
        for element in self.elements():
            self.taken += 1
            yield element


def pipeline(x, y, size=None):
    return Pipeline(lambda: list(zip(x, y, strict=True)), size)


def batches(x, y, size):
    cuts = range(0, len(x), size)
    return Pipeline(lambda: [{"image": x[i : i + size], "label": y[i : i + size]} for i in cuts])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_blocks_are_those_of_the_array(labelled_arrays, check_source, data) -> None:
    x, y, ranges = data.draw(labelled_arrays())
    if data.draw(st.booleans()):
        source = open_dataset(batches(x, y, data.draw(st.integers(1, 5))), batched=True)
    else:
        source = open_dataset(pipeline(x, y, data.draw(st.sampled_from([None, -2]))))
    check_source(source, x, y, ranges)


def test_reading_forward_is_one_iteration() -> None:
    dataset = pipeline(X, Y)
    source = open_dataset(dataset, Y)
    source.read(0, 1)
    before, taken = dataset.iterations, dataset.taken
    for start in range(1, 40, 3):
        np.testing.assert_array_equal(source.read(start, start + 3), X[start : start + 3])
    assert dataset.iterations == before
    assert dataset.taken - taken == 39
    source.read(0, 2)
    assert dataset.iterations == before + 1


def test_shuffling_is_refused() -> None:
    rng = np.random.default_rng(0)

    def shuffled():
        order = rng.permutation(40)
        return list(zip(X[order], Y[order], strict=True))

    with pytest.raises(DataError, match=r"switch off .*shuffling"):
        open_dataset(Pipeline(shuffled, 40))
    with pytest.raises(DataError, match=r"tf\.data: example \d+ differs between two reads"):
        open_dataset(Pipeline(shuffled, 40), Y)


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (pipeline(X, Y, -1), {}, r"tf\.data never ends: leave out repeat"),
        (pipeline(X[:0], Y[:0]), {}, "there are 0 examples"),
        ([X, Y], {}, "is a list and not a tf.data.Dataset"),
        (batches(X, Y, 8), {}, "label of example 0 is .* for batches of examples say so"),
        (pipeline(X, Y), {"batched": True}, "no batches of examples: pass batched=False"),
        (Pipeline(lambda: [(X, Y[:5])]), {"batched": True}, "no batches of examples"),
        (pipeline(X, Y, 41), {}, "the examples ended after 40, and 41 were counted"),
        (pipeline(X, np.eye(4)[Y]), {}, "one class index from 0 on is needed .of one-hot labels pass"),
    ],
)
def test_pipelines_that_cannot_be_used(dataset, options, message) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(dataset, **options)


def python_with_tensorflow() -> str | None:
    """This Python, or that of the environment in which `make zoo` exports Keras models."""
    if importlib.util.find_spec("tensorflow") is not None:
        return sys.executable
    other = ROOT / ".venv-zoo-keras" / "bin" / "python"
    return str(other) if other.exists() else None


def test_real_pipelines() -> None:
    python = python_with_tensorflow()
    if python is None:
        pytest.skip("TensorFlow is not installed, here or in .venv-zoo-keras")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])
    environment = {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [python, "tests/adapters/tf_pipelines.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "tf.data pipelines are read as their arrays" in done.stdout
