"""Sessions: a model loaded into ONNX Runtime, and the two kinds of model that scores are computed with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from vogcore.errors import DataError, ModelError
from vogcore.graph.names import GRADIENT, LOGITS_KEY, TARGET, WRT_KEY
from vogcore.runtime._ort_session import Session
from vogcore.runtime.device_output import DeviceOutput
from vogcore.runtime.providers import Provider

__all__ = ["ForwardSession", "GradientSession", "Session", "collect"]


class _ExampleSession:
    """What both kinds of session share: one input of examples, checked, and run at a fixed batch where need be."""

    def __init__(self, session: Session, input_name: str) -> None:
        self._session = session
        self.where = session.where
        self.provider = session.provider
        self.threads = session.threads
        self.input_name = input_name
        shape = session.input_shapes[input_name]
        dtype = session.input_dtypes[input_name]
        if not shape:
            raise ModelError(
                f"{self.where}: the input {input_name} declares no shape with a batch dimension, "
                "export the model with the shape of its input."
            )
        if dtype is None:
            raise ModelError(
                f"{self.where}: the input {input_name} has a type that NumPy lacks, "
                "export the model with a float32 input."
            )
        self.fixed_batch = shape[0]
        self.input_shape = shape[1:]
        self.input_dtype: np.dtype = dtype

    def _examples(self, x: npt.ArrayLike) -> npt.NDArray:
        """`x` in the model's type, after comparing its shape with the model's."""
        x = np.asarray(x)
        expected = ", ".join(["n", *("any" if size is None else str(size) for size in self.input_shape)])
        fits = x.ndim == len(self.input_shape) + 1 and all(
            size is None or size == got for size, got in zip(self.input_shape, x.shape[1:])
        )
        if not fits:
            raise DataError(
                f"{self.where}: the input {self.input_name} takes examples of shape ({expected}), "
                f"got an array of shape {x.shape}; choose the layout that fits, or another model."
            )
        if len(x) == 0:
            raise DataError(f"{self.where}: got a block without examples for the input {self.input_name}.")
        integers = x.dtype.kind in "iu" and self.input_dtype.kind in "iu"  # their values decide, see below
        if not integers and not np.can_cast(x.dtype, self.input_dtype, "same_kind"):
            advice = "convert the examples"
            if x.dtype.kind == "f" and self.input_dtype.kind in "iu":
                advice += ", and leave out preprocessing, which makes floats of integers"
            raise DataError(
                f"{self.where}: the input {self.input_name} takes {self.input_dtype} and got {x.dtype}, {advice}."
            )
        self._require_range(x)
        return np.ascontiguousarray(x, dtype=self.input_dtype)

    def _require_range(self, x: npt.NDArray) -> None:
        """Integers that a narrower type would wrap around without a word (a token index, above all) are refused."""
        if self.input_dtype.kind not in "iu" or np.can_cast(x.dtype, self.input_dtype, "safe"):
            return
        limits = np.iinfo(self.input_dtype)
        if int(x.min(initial=0)) < limits.min or int(x.max(initial=0)) > limits.max:
            raise DataError(
                f"{self.where}: the input {self.input_name} takes {self.input_dtype}, which cannot hold the examples' "
                f"values {x.min()} to {x.max()}; check that they are meant for this model."
            )

    def _run(self, outputs: list[str], feeds: dict[str, npt.NDArray], n: int) -> list[npt.NDArray]:
        if self.fixed_batch is None or self.fixed_batch == n:
            results = self._session.run(outputs, feeds)
        else:
            results = collect(n, self._fixed_batches(outputs, feeds, n, self.fixed_batch))
        self._require_batch(outputs, results, n)
        return results

    def _run_keeping(self, outputs: list[str], feeds: dict[str, npt.NDArray], n: int, kept: str) -> list[Any]:
        """Like :meth:`_run`, one output left on the device; at most one batch where the model fixes that."""
        batch = self.fixed_batch or n
        if n > batch:
            raise DataError(
                f"{self.where}: got {n} examples at once where gradients stay on the device, but the model takes "
                f"{batch}; pass them in parts."
            )
        results = self._session.run_keeping(outputs, _filled_up(feeds, 0, batch, n), kept)
        self._require_batch(outputs, results, batch)
        return [part.first(n) if name == kept else part[:n] for name, part in zip(outputs, results)]

    def _require_batch(self, outputs: list[str], results: Sequence[Any], n: int) -> None:
        for name, result in zip(outputs, results):
            if result.shape[:1] != (n,):
                raise ModelError(
                    f"{self.where}: the output {name} has shape {result.shape} for {n} examples, "
                    "its first dimension must be the batch."
                )

    def _fixed_batches(
        self, outputs: list[str], feeds: dict[str, npt.NDArray], n: int, batch: int
    ) -> Iterable[tuple[int, list[npt.NDArray]]]:
        for start in range(0, n, batch):
            used = min(batch, n - start)
            parts = self._session.run(outputs, _filled_up(feeds, start, batch, n))
            self._require_batch(outputs, parts, batch)
            yield start, [part[:used] for part in parts]

    def _logits(self, name: str, logits: npt.NDArray) -> npt.NDArray:
        if logits.ndim != 2:
            raise ModelError(
                f"{self.where}: the output {name} has shape {logits.shape}, logits must have shape (n, classes); "
                "name another output."
            )
        return logits.astype(np.result_type(logits.dtype, np.float32), copy=False)


class GradientSession(_ExampleSession):
    """A gradient graph, as made by ``vogcore.gradient_model``, ready to run.

    Attributes:
        input_name: the input that takes the examples.
        input_shape: shape of one example, None for a dynamic dimension.
        input_dtype: type that the model takes.
        wrt: the value that gradients are taken of: the input, or a float tensor inside the model, such as the output
            of an embedding.
        n_classes: width of the logits, None where the model leaves it open.
        fixed_batch: leading dimension of the input where the model fixes it, else None.
        provider: where it runs.
        threads: threads inside an operator.
        where: what messages call the model.
    """

    def __init__(
        self,
        gradient_model: onnx.ModelProto | bytes,
        *,
        provider: Provider | str = "auto",
        threads: int | None = None,
        where: str = "model",
    ) -> None:
        """Load a gradient graph.

        Args:
            gradient_model: a model with one input of examples, the int64 input "vogcore_target" (N,), logits (N, C)
                and "vogcore_gradient" (N, ...). The metadata "vogcore.wrt" and "vogcore.logits" name what gradients
                are taken of and the logits; without them they are the input and the first other output. Gradients of
                the input need a float input; those of a value inside the model do not.
            provider: as for :class:`Session`.
            threads: as for :class:`Session`.
            where: as for :class:`Session`.

        Raises:
            ModelError: ONNX Runtime refuses the model, or it is no gradient graph of one input.
            ProviderError: the provider cannot run here.
            SettingsError: `threads` is not positive, or the provider is unknown.
        """
        session = Session(gradient_model, provider=provider, threads=threads, where=where)
        for name, known, kind in (
            (TARGET, session.input_names, "input"),
            (GRADIENT, session.output_names, "output"),
        ):
            if name not in known:
                raise ModelError(
                    f"{where}: the model lacks the {kind} {name}, make a gradient graph of it with "
                    "vogcore.gradient_model."
                )
        inputs = [name for name in session.input_names if name != TARGET]
        logits = [name for name in session.output_names if name != GRADIENT]
        input_name = _only_input(where, inputs)
        logits_name = session.metadata.get(LOGITS_KEY) or (logits[0] if logits else "")
        if logits_name not in logits:
            raise ModelError(
                f"{where}: a gradient graph names the logits {logits_name!r}, and the model has the outputs "
                f"{', '.join(session.output_names)}; make it again with vogcore.gradient_model."
            )
        super().__init__(session, input_name)
        self.wrt: str = session.metadata.get(WRT_KEY) or input_name
        if self.wrt == input_name and self.input_dtype.kind != "f":
            raise ModelError(
                f"{where}: the input {input_name} is of type {self.input_dtype}, gradients need a floating-point one."
            )
        self.logits_name = logits_name
        self.n_classes = _width(session.output_shapes[logits_name])

    def run(self, x: npt.ArrayLike, target: npt.ArrayLike) -> tuple[npt.NDArray, npt.NDArray]:
        """Logits and input gradients of a block of examples.

        With a fixed batch the block is run in batches of that size; the last one is filled up by repeating its last
        example, and the filling is cut off.

        Args:
            x: examples (n, *input_shape), of a type that converts to `input_dtype` within its kind.
            target: class index of every example (n,), of an integer type.

        Returns:
            Logits (n, C), float32 or float64, and gradients in the model's type: (n, *input_shape), or (n, ...) with
            the shape of the value inside the model that they are taken of.

        Raises:
            DataError: examples or targets do not fit the model.
            ModelError: ONNX Runtime fails (memory included), or the outputs have other shapes.
        """
        outputs, feeds, n = self._prepared(x, target)
        logits, gradient = self._run(outputs, feeds, n)
        self._require_shape(gradient, feeds)
        return self._logits(self.logits_name, logits), gradient

    def run_on_device(self, x: npt.ArrayLike, target: npt.ArrayLike) -> tuple[npt.NDArray, DeviceOutput]:
        """Like :meth:`run`, with the gradients left on the provider's device, without a copy.

        Args:
            x: as for :meth:`run`; at most `fixed_batch` examples where the model fixes that.
            target: as for :meth:`run`.

        Returns:
            Logits, and gradients as an array that the functions of :mod:`vogcore.kernels` take. The next run does not
            touch it; its memory goes back to ONNX Runtime when it is deleted.

        Raises:
            DataError: as :meth:`run`; or there are too many examples for the model.
            ModelError: as :meth:`run`.
        """
        outputs, feeds, n = self._prepared(x, target)
        logits, gradient = self._run_keeping(outputs, feeds, n, GRADIENT)
        self._require_shape(gradient, feeds)
        return self._logits(self.logits_name, logits), gradient

    def _prepared(self, x: npt.ArrayLike, target: npt.ArrayLike) -> tuple[list[str], dict[str, npt.NDArray], int]:
        x = self._examples(x)
        return [self.logits_name, GRADIENT], {self.input_name: x, TARGET: self._targets(target, len(x))}, len(x)

    def _require_shape(self, gradient: Any, feeds: dict[str, npt.NDArray]) -> None:
        shape = feeds[self.input_name].shape
        if self.wrt == self.input_name and gradient.shape != shape:
            raise ModelError(
                f"{self.where}: the gradient has shape {gradient.shape} for examples of shape {shape}, "
                "make the gradient graph again with vogcore.gradient_model."
            )

    def _targets(self, target: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
        target = np.asarray(target)
        if target.shape != (n,) or target.dtype.kind not in "iu":
            raise DataError(
                f"{self.where}: targets must be {n} integer class indices of shape ({n},), "
                f"got {target.dtype} of shape {target.shape}."
            )
        # An index outside reads another example's logit or none at all, without an error from some operators.
        outside = target < 0
        if self.n_classes is not None:
            outside |= target >= self.n_classes
        if outside.any():
            position = int(np.argmax(outside))
            classes = "classes counted from 0" if self.n_classes is None else f"classes 0 to {self.n_classes - 1}"
            raise DataError(
                f"{self.where}: the target {target[position]} at position {position} of the block is no class of the "
                f"model, which has {classes}."
            )
        return np.ascontiguousarray(target, dtype=np.int64)


class ForwardSession(_ExampleSession):
    """A forward model of one input whose first output is the logits.

    Attributes:
        input_name: the input.
        input_shape: shape of one example, None for a dynamic dimension.
        input_dtype: type that the model takes.
        n_classes: width of the logits, None where the model leaves it open.
        fixed_batch: leading dimension of the input where the model fixes it, else None.
        provider: where it runs.
        threads: threads inside an operator.
        where: what messages call the model.
    """

    def __init__(
        self,
        logits_model: onnx.ModelProto | bytes,
        *,
        provider: Provider | str = "auto",
        threads: int | None = None,
        where: str = "model",
    ) -> None:
        """Load a forward model.

        Args:
            logits_model: a model with one input; its first output is logits (N, C).
            provider: as for :class:`Session`.
            threads: as for :class:`Session`.
            where: as for :class:`Session`.

        Raises:
            ModelError: ONNX Runtime refuses the model, or it has not exactly one input.
            ProviderError: the provider cannot run here.
            SettingsError: `threads` is not positive, or the provider is unknown.
        """
        session = Session(logits_model, provider=provider, threads=threads, where=where)
        super().__init__(session, _only_input(where, session.input_names))
        self.logits_name = session.output_names[0]
        self.n_classes = _width(session.output_shapes[self.logits_name])

    def run(self, x: npt.ArrayLike) -> npt.NDArray:
        """Logits (n, C), float32 or float64, of examples (n, *input_shape).

        Raises:
            DataError: the examples do not fit the model.
            ModelError: ONNX Runtime fails (memory included), or the output is no (n, C) array.
        """
        x = self._examples(x)
        (logits,) = self._run([self.logits_name], {self.input_name: x}, len(x))
        return self._logits(self.logits_name, logits)


def collect(n: int, pieces: Iterable[tuple[int, Sequence[npt.NDArray]]]) -> list[npt.NDArray]:
    """Arrays of length `n` put together from pieces (start, arrays), each copied once.

    The first piece decides shapes and types; the pieces together must cover 0 to n.
    """
    whole: list[npt.NDArray] = []
    for start, arrays in pieces:
        if not whole:
            whole = [np.empty((n, *array.shape[1:]), dtype=array.dtype) for array in arrays]
        for target, array in zip(whole, arrays):
            target[start : start + len(array)] = array
    return whole


def _filled_up(feeds: dict[str, npt.NDArray], start: int, batch: int, n: int) -> dict[str, npt.NDArray]:
    """``batch`` rows of ``n`` from ``start`` on; where they end, the last is repeated.

    Padding that the model has seen cannot upset it, zeros may.
    """
    if start == 0 and batch == n:
        return feeds
    rows = np.minimum(np.arange(start, start + batch), n - 1)
    return {name: value[rows] for name, value in feeds.items()}


def _width(shape: tuple[int | None, ...]) -> int | None:
    return shape[1] if len(shape) == 2 else None


def _only_input(where: str, names: list[str]) -> str:
    if len(names) != 1:
        raise ModelError(
            f"{where}: the model takes {len(names)} inputs ({', '.join(names) or 'none'}) where examples can fill "
            "one: export it with the others as constants."
        )
    return names[0]
