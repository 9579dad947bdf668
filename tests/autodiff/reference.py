"""The ONNX reference evaluator in float64, with the operators replaced that it gets wrong or computes in float32."""

from __future__ import annotations

import itertools
from math import erf

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun


class Erf(OpRun):
    """onnx computes it in float32."""

    def _run(self, x):
        return (np.vectorize(erf, otypes=[np.float64])(x).astype(x.dtype),)


class Gelu(OpRun):
    """onnx computes its erf in float32."""

    def _run(self, x, approximate="none"):
        if approximate == "tanh":
            return (0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),)
        return (0.5 * x * (1 + np.vectorize(erf, otypes=[np.float64])(x / np.sqrt(2))),)


class Mean(OpRun):
    """onnx fails where the first input is narrower than the others."""

    def _run(self, *values):
        return (sum(values[1:], values[0]) / len(values),)


class LpNormalization(OpRun):
    """onnx leaves the absolute value out of the norm of order 1."""

    def _run(self, x, axis=-1, p=2):
        norm = np.linalg.norm(x, ord=p, axis=axis, keepdims=True)
        return (np.where(norm == 0, 0, x / norm),)


class LRN(OpRun):
    """onnx normalises as many channels as there are examples."""

    def _run(self, x, alpha=1e-4, beta=0.75, bias=1.0, size=None):
        windows = [range(max(0, c - (size - 1) // 2), min(x.shape[1], c + size // 2 + 1)) for c in range(x.shape[1])]
        total = np.stack([(x[:, list(window)] ** 2).sum(axis=1) for window in windows], axis=1)
        return (x / (bias + alpha / size * total) ** beta,)


class MeanVarianceNormalization(OpRun):
    """onnx expands it into a function with float32 constants."""

    def _run(self, x, axes=(0, 2, 3)):
        axes = tuple(axes)
        return ((x - x.mean(axis=axes, keepdims=True)) / (x.std(axis=axes, keepdims=True) + 1e-9),)


class GroupNormalization(OpRun):
    """onnx expands it into a function that computes in float32; this is opset 21, a scale for each channel."""

    def _run(self, x, scale, bias, epsilon=1e-5, num_groups=None, stash_type=1):
        groups = x.reshape(x.shape[0], num_groups, -1)
        centred = groups - groups.mean(axis=2, keepdims=True)
        normal = (centred / np.sqrt(groups.var(axis=2, keepdims=True) + epsilon)).reshape(x.shape)
        shape = (-1, *[1] * (x.ndim - 2))
        return (normal * scale.reshape(shape) + bias.reshape(shape),)


class MaxPool(OpRun):
    """onnx returns wrong Indices for several channels."""

    def _run(
        self, x, auto_pad=None, ceil_mode=0, dilations=None, kernel_shape=None, pads=None, storage_order=0, strides=None
    ):
        n = len(kernel_shape)
        strides, dilations = strides or [1] * n, dilations or [1] * n
        pads = list(pads or [0] * 2 * n)
        extent = [(k - 1) * d + 1 for k, d in zip(kernel_shape, dilations)]
        size = x.shape[2:]
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            out = [-(-i // s) for i, s in zip(size, strides)]
            total = [max((o - 1) * s + e - i, 0) for o, s, e, i in zip(out, strides, extent, size)]
            first = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
        else:
            first = pads[:n]
            room = [i + b + e - x_ for i, b, e, x_ in zip(size, pads[:n], pads[n:], extent)]
            out = [(-(-r // s) if ceil_mode else r // s) + 1 for r, s in zip(room, strides)]
            out = [o - 1 if (o - 1) * s >= i + b else o for o, s, i, b in zip(out, strides, size, first)]
        flat = np.arange(x.size).reshape(x.shape)
        y = np.full((*x.shape[:2], *out), -np.inf)
        indices = np.zeros(y.shape, np.int64)
        for place in itertools.product(*(range(o) for o in out)):
            best, where = np.full(x.shape[:2], -np.inf), np.zeros(x.shape[:2], np.int64)
            for tap in itertools.product(*(range(k) for k in kernel_shape)):
                at = tuple(p * s + t * d - b for p, s, t, d, b in zip(place, strides, tap, dilations, first))
                if any(a < 0 or a >= i for a, i in zip(at, size)):
                    continue
                value, position = x[(..., *at)], flat[(..., *at)]
                better = value > best
                best, where = np.where(better, value, best), np.where(better, position, where)
            y[(..., *place)], indices[(..., *place)] = best, where
        return (y.astype(x.dtype), indices)[: len(self.onnx_node.output)]


class ConvTranspose(OpRun):
    """onnx fails for groups with one example; here every group is a call of its own."""

    def _run(self, x, w, b=None, auto_pad=None, dilations=None, group=1, kernel_shape=None, output_padding=None,
             output_shape=None, pads=None, strides=None):  # fmt: skip
        n = w.ndim - 2
        strides, dilations = strides or [1] * n, dilations or [1] * n
        pads, extra = pads or [0] * 2 * n, output_padding or [0] * n
        kernel = w.shape[2:]
        full = [
            (i - 1) * s + (k - 1) * d + 1 + o for i, s, k, d, o in zip(x.shape[2:], strides, kernel, dilations, extra)
        ]
        per = w.shape[1]
        y = np.zeros((x.shape[0], per * group, *full))
        for g in range(group):
            rows = slice(g * w.shape[0] // group, (g + 1) * w.shape[0] // group)
            for tap in itertools.product(*(range(k) for k in kernel)):
                part = np.einsum("nc...,cm->nm...", x[:, rows], w[(rows, slice(None), *tap)])
                at = tuple(
                    slice(t * d, t * d + (i - 1) * s + 1, s) for t, d, i, s in zip(tap, dilations, x.shape[2:], strides)
                )
                y[(slice(None), slice(g * per, (g + 1) * per), *at)] += part
        y = y[(..., *(slice(b, y.shape[2 + a] - e) for a, (b, e) in enumerate(zip(pads[:n], pads[n:]))))]
        if b is not None:
            y = y + b.reshape(1, -1, *[1] * n)
        return (y.astype(x.dtype),)


NEW_OPS = [Erf, Gelu, Mean, LpNormalization, LRN, MeanVarianceNormalization, GroupNormalization, MaxPool, ConvTranspose]


def evaluator(model: onnx.ModelProto) -> ReferenceEvaluator:
    """A float64 evaluator of ``model``."""
    return ReferenceEvaluator(model, new_ops=NEW_OPS)
