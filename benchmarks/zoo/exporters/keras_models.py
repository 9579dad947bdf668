"""Keras networks through tf2onnx and through Keras' own export; the truth is TensorFlow's gradient in float64.

TensorFlow is installed in an environment of its own (``make zoo``): it is large, and not needed elsewhere.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.zoo.entry import Entry, Exported

__all__ = ["entries"]

CLASSES, EXAMPLES, VOCABULARY = 10, 16, 40
Make = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Network:
    """A network of this module."""

    name: str
    body: Make
    """keras, input tensor -> features (N, F) before the classifier."""
    shape: tuple[int, ...]
    opsets: tuple[int, ...] = (18,)
    golden: tuple[str, int] | None = None
    """The exporter and opset of the golden file, if there is one."""
    tokens: bool = False
    """The input is token ids; the gradient is that of the layer ``words``."""


def entries(short: bool = False) -> list[Entry]:
    """tf2onnx at each opset, then Keras' export; only what goes into golden files if ``short``."""
    if short:
        return [_entry(network, *network.golden, short=True) for network in NETWORKS if network.golden]
    result = []
    for network in NETWORKS:
        result += [_entry(network, "tf2onnx", opset) for opset in network.opsets]
        result.append(_entry(network, "Keras export", 15))
    return result


def _entry(network: Network, exporter: str, opset: int, short: bool = False) -> Entry:
    return Entry(network.name, "keras", exporter, opset, lambda: _build(network, exporter, opset, short))


def _build(network: Network, exporter: str, opset: int, short: bool) -> Exported:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import onnx
    import tensorflow as tf

    keras.utils.set_random_seed(8)
    model = _model(keras, network, "float32", softmax=True)
    generator = np.random.default_rng(8)
    x = _draw(generator, network)[: 4 if short else EXAMPLES]
    _scramble(keras, model, generator, x)
    proto = _export(model, network, exporter, opset)
    target = np.arange(len(x)) % CLASSES

    def gradient(dtype: str) -> tuple[np.ndarray, np.ndarray]:
        again = _model(keras, network, dtype, softmax=False)
        again.set_weights(model.get_weights())
        start = again
        source = tf.constant(x if network.tokens else x.astype(dtype))
        if network.tokens:
            words = again.get_layer("words")
            source, start = words(source), keras.Model(words.output, again.output)
        with tf.GradientTape() as tape:
            tape.watch(source)
            logits = start(source, training=False)
            chosen = tf.reduce_sum(tf.gather(logits, target, axis=1, batch_dims=1))
        return tape.gradient(chosen, source).numpy(), logits.numpy()

    exact, logits = gradient("float64")
    name = proto.graph.input[0].name
    return Exported(
        model=proto.SerializeToString(),
        feeds={name: x},
        target=target,
        gradient=exact,
        logits=logits,
        own=None if short else gradient("float32")[0],
        wrt=_embedding_output(onnx, proto) if network.tokens else None,
        reference="tf.GradientTape, float64",
    )


def _model(keras: Any, network: Network, dtype: str, softmax: bool) -> Any:
    before = keras.config.dtype_policy().name
    keras.config.set_dtype_policy(dtype)
    try:
        given = keras.Input(network.shape, dtype="int32" if network.tokens else dtype, name="x")
        y = given
        if network.tokens:
            y = keras.layers.Embedding(VOCABULARY, 12, name="words")(y)
        y = keras.layers.Dense(CLASSES, name="logits")(network.body(keras, y))
        return keras.Model(given, keras.layers.Softmax()(y) if softmax else y)
    finally:
        keras.config.set_dtype_policy(before)


def _draw(generator: np.random.Generator, network: Network) -> np.ndarray:
    shape = (EXAMPLES, *network.shape)
    if network.tokens:
        return generator.integers(0, VOCABULARY, shape).astype(np.int32)
    return generator.standard_normal(shape).astype(np.float32)


def _scramble(keras: Any, model: Any, generator: np.random.Generator, x: np.ndarray) -> None:
    """Vectors away from 0 and 1, statistics of batch normalisation from a few batches."""
    model.set_weights(
        [
            w + 0.1 * generator.standard_normal(w.shape).astype(w.dtype) if w.ndim == 1 else w
            for w in model.get_weights()
        ]
    )
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.5
    for _ in range(10 if norms else 1):
        model(x, training=bool(norms))


def _export(model: Any, network: Network, exporter: str, opset: int) -> Any:
    import onnx
    import tensorflow as tf
    import tf2onnx

    if exporter == "tf2onnx":
        dtype = tf.int32 if network.tokens else tf.float32
        signature = [tf.TensorSpec((None, *network.shape), dtype, name="x")]
        function = tf.function(lambda given: model(given, training=False), input_signature=signature)
        return tf2onnx.convert.from_function(function, input_signature=signature, opset=opset)[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.export(str(path), format="onnx", verbose=False, opset_version=opset)
        return onnx.load(path)


def _embedding_output(onnx: Any, proto: Any) -> str:
    tables = {tensor.name for tensor in proto.graph.initializer if len(tensor.dims) == 2}
    return next(n.output[0] for n in proto.graph.node if n.op_type == "Gather" and n.input[0] in tables)


def _mlp(keras: Any, x: Any) -> Any:
    layers = keras.layers
    for units, activation in ((32, "relu"), (24, "elu"), (24, "selu"), (16, "softplus"), (16, "leaky_relu")):
        x = layers.Dense(units, activation=activation)(x)
    return layers.Dropout(0.3)(x)


def _cnn(keras: Any, x: Any) -> Any:
    layers = keras.layers
    x = layers.Conv2D(8, 3, 2, "same", activation="relu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D(3, 2, "same")(layers.SeparableConv2D(12, 3, padding="same", activation="swish")(x))
    x = layers.AveragePooling2D(3, 1, "same")(layers.ZeroPadding2D(1)(x))
    return layers.Flatten()(layers.Conv2D(8, (1, 3), dilation_rate=1, activation="hard_swish")(x))


def _resnet(keras: Any, x: Any) -> Any:
    layers = keras.layers
    x = layers.Conv2D(16, 3, padding="same")(x)
    for channels, stride in ((16, 1), (24, 2), (32, 2)):
        y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(channels, 3, stride, "same", use_bias=False)(x)))
        y = layers.BatchNormalization()(layers.Conv2D(channels, 3, padding="same", use_bias=False)(y))
        short = layers.BatchNormalization()(layers.Conv2D(channels, 1, stride, use_bias=False)(x))
        x = layers.ReLU()(layers.Add()([y, short]))
    return layers.GlobalAveragePooling2D()(x)


def _unet(keras: Any, x: Any) -> Any:
    layers = keras.layers
    a = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    b = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.MaxPooling2D()(a))
    c = layers.Conv2D(12, 3, padding="same", activation="relu")(layers.MaxPooling2D()(b))
    b = layers.Concatenate()([layers.Conv2DTranspose(8, 3, 2, "same")(c), b])
    up = layers.UpSampling2D(2, interpolation="bilinear")(layers.Conv2D(8, 3, padding="same")(b))
    x = layers.Concatenate()([up, layers.UpSampling2D(4)(c), a])
    x = layers.GroupNormalization(4)(layers.Conv2D(8, 3, padding="same")(x))
    return layers.Concatenate()([layers.GlobalMaxPooling2D()(x), layers.GlobalAveragePooling2D()(x)])


def _transformer(approximate: bool) -> Make:
    def body(keras: Any, x: Any) -> Any:
        layers = keras.layers
        x = layers.Dense(16)(x)
        for _ in range(2):
            y = layers.LayerNormalization(epsilon=1e-6)(x)
            x = layers.Add()([x, layers.MultiHeadAttention(2, 8)(y, y)])
            y = layers.Dense(32)(layers.LayerNormalization(epsilon=1e-6)(x))
            y = layers.Lambda(lambda v: keras.activations.gelu(v, approximate=approximate))(y)
            x = layers.Add()([x, layers.Dense(16)(y)])
        return layers.GlobalAveragePooling1D()(x)

    return body


def _recurrent(kind: str, both: bool = False, **settings: Any) -> Make:
    def body(keras: Any, x: Any) -> Any:
        layer = getattr(keras.layers, kind)(12, **settings)
        return (keras.layers.Bidirectional(layer) if both else layer)(x)

    return body


def _words(keras: Any, x: Any) -> Any:
    layers = keras.layers
    parts = [layers.GlobalMaxPooling1D()(layers.Conv1D(8, size, activation="tanh")(x)) for size in (2, 3)]
    return layers.Concatenate()(parts)


def _application(name: str, **settings: Any) -> Make:
    def body(keras: Any, x: Any) -> Any:
        make = getattr(keras.applications, name)
        return make(weights=None, include_top=False, pooling="avg", input_shape=tuple(x.shape[1:]), **settings)(x)

    return body


NETWORKS = [
    Network("MLP", _mlp, (20,), (9, 13, 18), golden=("tf2onnx", 9)),
    Network("CNN", _cnn, (12, 12, 3), (9, 13, 18), golden=("Keras export", 15)),
    Network("ResNet", _resnet, (32, 32, 3), (13, 18)),
    Network("UNet", _unet, (12, 12, 3), (13, 18), golden=("tf2onnx", 18)),
    Network("Transformer, tanh GELU", _transformer(True), (8, 12), (13, 18), golden=("tf2onnx", 13)),
    Network("Transformer, exact GELU", _transformer(False), (8, 12), (18,), golden=("tf2onnx", 18)),
    Network("LSTM", _recurrent("LSTM"), (9, 6), (13, 18), golden=("Keras export", 15)),
    Network("LSTM, bidirectional", _recurrent("LSTM", True), (9, 6), golden=("tf2onnx", 18)),
    Network("GRU", _recurrent("GRU"), (9, 6), (13, 18), golden=("tf2onnx", 18)),
    Network("GRU, reset before", _recurrent("GRU", reset_after=False), (9, 6)),
    Network("SimpleRNN", _recurrent("SimpleRNN"), (9, 6)),
    Network("text CNN", _words, (10,), golden=("Keras export", 15), tokens=True),
    Network("applications MobileNetV2", _application("MobileNetV2", alpha=0.35), (96, 96, 3)),
    Network("applications MobileNetV3Small", _application("MobileNetV3Small", minimalistic=False), (64, 64, 3)),
    Network("applications EfficientNetB0", _application("EfficientNetB0"), (64, 64, 3)),
    Network("applications DenseNet121", _application("DenseNet121"), (64, 64, 3)),
    Network("applications ConvNeXtTiny", _application("ConvNeXtTiny"), (64, 64, 3)),
]
