"""Keras' fit with the callback, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import keras
import numpy as np
from shared import BATCH, EPOCHS, digits, equal, finish, folder, options, whole

from vogcore_adapters.keras import ExportCheckpoints
from vogcore_adapters.native_keras import input_gradients

LAYOUT = "nhw->nhwc"


def network() -> keras.Model:
    layers = keras.layers
    return keras.Sequential([
        keras.Input((8, 8, 1)), layers.Conv2D(8, 3, padding="same"), layers.BatchNormalization(momentum=0.8),
        layers.ReLU(), layers.Dropout(0.2), layers.MaxPooling2D(), layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ])  # fmt: skip


def gradient(model: keras.Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """d logit of the label / d input by the backend's own differentiation, before the softmax."""
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    twin.layers[-1].activation = keras.activations.linear
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        given = torch.tensor(x, requires_grad=True)
        chosen = twin(given, training=False).gather(1, torch.tensor(y)[:, None]).sum()
        return torch.autograd.grad(chosen, given)[0].numpy()
    if backend == "jax":
        import jax

        return np.asarray(
            jax.grad(lambda v: jax.numpy.take_along_axis(twin(v, training=False), y[:, None], 1).sum())(x)
        )
    import tensorflow as tf

    given = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(given)
        chosen = tf.reduce_sum(tf.gather(twin(given, training=False), y, axis=1, batch_dims=1))
    return tape.gradient(chosen, given).numpy()


class Gradients(keras.callbacks.Callback):
    """Gradients whenever the callback before this one has written a checkpoint."""

    def __init__(self, exporter) -> None:
        super().__init__()
        self.exporter, self.found = exporter, []

    def on_train_batch_end(self, batch, logs=None):
        if len(self.exporter.exports) > len(self.found):
            blocks = input_gradients(self.model, *digits(LAYOUT), batch_size=64)
            self.found.append((whole(blocks), self.model.get_weights()))

    on_epoch_end = on_train_batch_end


def train(export: bool) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    keras.utils.set_random_seed(0)
    x, y = digits(LAYOUT)
    model, callbacks = network(), []
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    if export:
        callback = ExportCheckpoints(folder() / "ckpts", **options(LAYOUT))
        callbacks = [callback, Gradients(callback.exporter)]
    model.fit(x, y, BATCH, EPOCHS, verbose=0, callbacks=callbacks)
    state = [*model.get_weights(), *(np.asarray(keras.ops.convert_to_numpy(v)) for v in model.non_trainable_variables)]
    found = []
    for native, weights in callbacks[1].found if export else []:
        twin = keras.models.clone_model(model)
        twin.set_weights(weights)
        found.append((native, gradient(twin, x, y)))
    return state, found


plain, watched = train(False), train(True)
finish(watched[1], equal(plain[0], watched[0]))
