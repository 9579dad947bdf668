"""What the Keras callback promises besides right checkpoints; run by tests/adapters/test_keras.py."""

from __future__ import annotations

import keras
import numpy as np
from shared import folder

from vogcore.errors import ModelError
from vogcore_adapters.keras import ExportCheckpoints, to_onnx
from vogcore_adapters.schedule import every_epoch, every_n_steps

GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.standard_normal((20, 4)).astype("float32"), GENERATOR.integers(0, 3, 20)


def network(**options) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options)
    return model


def steps(callback: ExportCheckpoints) -> list[tuple[int, int | None]]:
    return [(export.step, export.epoch) for export in callback.exporter.exports]


def a_second_fit_goes_on_counting() -> None:
    callback, model = ExportCheckpoints(folder() / "twice"), network()
    model.fit(X, Y, 4, 2, verbose=0, callbacks=[callback])
    model.fit(X, Y, 4, 3, initial_epoch=2, verbose=0, callbacks=[callback])
    assert steps(callback) == [(5, 1), (10, 2), (15, 3)], steps(callback)


def an_interrupted_fit_is_gone_on_with() -> None:
    model = network()
    model.fit(X, Y, 4, 2, verbose=0, callbacks=[ExportCheckpoints(folder() / "on", schedule=every_n_steps(2))])
    model.optimizer.iterations.assign(6)  # as a checkpoint of Keras' own, taken earlier, would restore it
    callback = ExportCheckpoints(folder() / "on", schedule=every_n_steps(2) | every_epoch(), resume=True)
    model.fit(X, Y, 4, 2, initial_epoch=1, verbose=0, callbacks=[callback])
    assert steps(callback) == [(8, 1), (10, 1), (11, 2)], steps(callback)
    names = sorted(path.name for path in (folder() / "on").iterdir())
    kept, aside = ["ckpt-10", "ckpt-11", "ckpt-2", "ckpt-4", "ckpt-6", "ckpt-8"], ["ckpt-10", "ckpt-8"]
    assert names == sorted([f"{n}.onnx" for n in kept] + [f"{n}.onnx.superseded" for n in aside]), names


def steps_taken_together_are_not_missed() -> None:
    callback = ExportCheckpoints(folder() / "several", schedule=every_n_steps(3))
    network(steps_per_execution=2, jit_compile=False).fit(X, Y, 4, 2, verbose=0, callbacks=[callback])
    # Five batches in executions of 2, 2 and 1: steps 2, 4, 5, 7, 9, 10.
    assert [step for step, _ in steps(callback)] == [4, 7, 9], steps(callback)


def models_that_cannot_be_exported_are_refused() -> None:
    one, two = keras.Input((4,)), keras.Input((4,))
    both = keras.Model([one, two], keras.layers.Dense(3)(one + two))
    for model in (keras.Sequential([keras.layers.Dense(3)]), both):
        message = ""
        try:
            to_onnx(model)
        except ModelError as error:
            message = str(error)
        assert "needs one input and one output" in message, message


for check in (
    a_second_fit_goes_on_counting,
    an_interrupted_fit_is_gone_on_with,
    steps_taken_together_are_not_missed,
    models_that_cannot_be_exported_are_refused,
):
    check()
