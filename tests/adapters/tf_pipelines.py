"""Real tf.data pipelines against their arrays; run by test_tf_data.py with a Python that has TensorFlow."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from vogcore.data import open_source
from vogcore.errors import DataError
from vogcore_adapters.tf_data import open_dataset

__all__: list[str] = []

X = np.arange(50 * 6, dtype=np.float32).reshape(50, 2, 3)
Y = np.arange(50) % 4


def message(dataset: tf.data.Dataset, **options: object) -> str:
    """What open_dataset says; empty where it opens."""
    try:
        open_dataset(dataset, **options).fingerprint()
    except DataError as error:
        return str(error)
    return ""


def main() -> None:
    """Raises AssertionError where a pipeline is read wrongly."""
    pairs = tf.data.Dataset.from_tensor_slices((X, Y))
    dicts = tf.data.Dataset.from_tensor_slices({"image": X, "label": Y})
    for dataset, options in (
        (pairs, {}),
        (dicts, {}),
        (pairs.batch(7), {"batched": True}),
        (dicts.batch(7, drop_remainder=False).prefetch(2), {"batched": True}),
        (pairs.map(lambda x, y: (x * 1, y)).filter(lambda x, y: y < 9), {}),  # of unknown length
        (tf.data.Dataset.from_tensor_slices(X), {"labels": Y}),
    ):
        source = open_dataset(dataset, **options)
        for start, stop in ((40, 50), (0, 3), (3, 9), (1, 2), (0, 50)):
            np.testing.assert_array_equal(source.read(start, stop), X[start:stop])
        assert source.labels is not None
        assert source.labels.tolist() == Y.tolist()
        assert source.fingerprint() == open_source(X, Y).fingerprint()

    fixed = pairs.shuffle(50, seed=1, reshuffle_each_iteration=False)  # an order of its own, but always the same
    assert sorted(open_dataset(fixed).read(0, 50)[:, 0, 0].tolist()) == X[:, 0, 0].tolist()
    assert "shuffling" in message(pairs.shuffle(50))
    flipped = pairs.map(lambda x, y: (tf.image.random_flip_left_right(x[..., None]), y))
    assert "differs between two reads" in message(flipped)
    assert "never ends" in message(pairs.repeat())
    assert "0 examples" in message(pairs.take(0))
    assert "for batches of examples say so" in message(pairs.batch(7))
    assert "no batches" in message(tf.data.Dataset.from_tensor_slices(Y), batched=True)
    print("tf.data pipelines are read as their arrays")


if __name__ == "__main__":
    main()
