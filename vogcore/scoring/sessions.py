"""Gradient graphs of the checkpoints, made once, and sessions on them, one alive at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx

from vogcore.autodiff import gradient_model
from vogcore.autodiff.plan import GradientPlan
from vogcore.errors import CheckpointError
from vogcore.graph import logits_model
from vogcore.graph.light import structure_digest, weights_nbytes
from vogcore.graph.load import naming
from vogcore.runtime import (
    ForwardSession,
    GradientSession,
    Provider,
    keeps_gradients,
    make_batch_dynamic,
    shapes_left_out,
)
from vogcore.scoring.checkpoints import Checkpoint
from vogcore.scoring.settings import Settings

__all__ = ["Sessions", "Signature"]

_GRAPH_BUDGET = 64 << 20
"""Bytes of gradient graphs that are kept; beyond it they are made anew for every block of examples."""


class Signature(NamedTuple):
    """What all checkpoints of a run must have in common, and what the first one makes of an example."""

    input_name: str
    input_shape: tuple[int | None, ...]
    input_dtype: np.dtype
    classes: int
    gradient_shape: tuple[int, ...]
    gradient_dtype: np.dtype


class Sessions:
    """Sessions for a list of checkpoints.

    Only one session is alive at a time: the arena of each holds the activations of a batch, and memory must not grow
    with the number of checkpoints. With large blocks, making a session anew costs about one percent of using it.

    Attributes:
        fixed_batch: examples in a run of the first checkpoint where its model fixes them and cannot be freed, or None;
            known once :meth:`check` was called.
        threads: threads inside an operator that the sessions really use; known then too.
        device: where gradients are scored: "cuda" where they stay on the GPU that computes them, else "cpu".
    """

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        settings: Settings,
        provider: Provider,
        threads: int | None,
        *,
        wrt: str | None = None,
        output: str | None = None,
    ) -> None:
        self.provider = provider
        self.device = "cuda" if keeps_gradients(provider) else "cpu"
        self.fixed_batch: int | None = None
        self.threads = 0
        self._checkpoints, self._settings, self._threads = checkpoints, settings, threads
        self._wrt, self._output = wrt, output
        self._graphs: dict[tuple[str, int], bytes] = {}
        self._plans: dict[str, GradientPlan] = {}
        self._alike: set[int] = set()
        self._kept = 0
        self._structures: dict[int, str] = {}
        self._checked: GradientSession | None = None

    @property
    def structure(self) -> str:
        """Hex digest of the structure of all gradient graphs, without weights; known once :meth:`check` was called."""
        return hashlib.sha256("".join(self._structures[at] for at in sorted(self._structures)).encode()).hexdigest()

    def check(self, example: npt.NDArray) -> Signature:
        """Build every gradient graph and run it once, so that nothing that can be known now fails hours later.

        A graph that is another one's with other weights is not run: what it makes of an example has the same shape.

        Args:
            example: one example (1, ...).

        Raises:
            CheckpointError: a checkpoint differs from the first in input shape or type, number of classes, or shape
                or type of the gradient.
            DataError: the example does not fit the model.
            ModelError: a checkpoint cannot be differentiated or run.
        """
        first: Signature | None = None
        for index, checkpoint in enumerate(self._checkpoints):
            graph = self._gradient_graph(index)
            if index in self._alike:
                continue
            self._checked = None
            session = self._gradient_session(graph, index)
            del graph
            if first is None:
                self.fixed_batch, self.threads = session.fixed_batch, session.threads
            else:
                self._compare(checkpoint, _input(session), _input_of(first))
            logits, gradient = session.run(example, np.zeros(1, np.int64))
            here = Signature(
                session.input_name,
                tuple(session.input_shape),
                session.input_dtype,
                int(logits.shape[1]),
                tuple(int(size) for size in gradient.shape[1:]),
                gradient.dtype,
            )
            first = first or here
            self._compare(checkpoint, _results(here), _results(first))
            if index == 0:
                self._checked = session  # the first to be used, unless another one is made before
            del session
        assert first is not None
        return first

    def _compare(self, checkpoint: Checkpoint, here: str, first: str) -> None:
        if here != first:
            raise CheckpointError(
                f"Checkpoint {checkpoint.name} {here}, but {self._checkpoints[0].name} {first}; score checkpoints of "
                "one training run only."
            )

    def gradient(self, index: int) -> GradientSession:
        """A session on the gradient graph of one checkpoint."""
        checked, self._checked = self._checked, None
        if checked is not None and index == 0:
            return checked
        return self._gradient_session(self._gradient_graph(index), index)

    def _gradient_graph(self, index: int) -> onnx.ModelProto | bytes:
        return self._graph(
            "gradient",
            index,
            lambda model: gradient_model(
                model, of=self._settings.of, wrt=self._wrt, output=self._output, lowering=self.provider.name
            ),
        )

    def _gradient_session(self, graph: onnx.ModelProto | bytes, index: int) -> GradientSession:
        where = self._checkpoints[index].name
        return GradientSession(graph, provider=self.provider, threads=self._threads, where=where)

    def forward(self, index: int) -> ForwardSession:
        """A session on the forward graph of one checkpoint, giving the logits alone."""
        self._checked = None
        graph = self._graph("forward", index, lambda model: logits_model(model, self._output))
        where = self._checkpoints[index].name
        return ForwardSession(graph, provider=self.provider, threads=self._threads, where=where)

    def _graph(
        self, kind: str, index: int, make: Callable[[onnx.ModelProto], onnx.ModelProto]
    ) -> onnx.ModelProto | bytes:
        kept = self._graphs.get((kind, index))
        if kept is not None:
            return kept
        model = self._made(kind, index, make)
        if kind == "gradient" and index not in self._structures:
            self._structures[index] = structure_digest(model)
        # A rough size: asking protobuf for it costs as much as writing the model out.
        size = weights_nbytes(model)
        if self._kept + size > _GRAPH_BUDGET:
            return model
        with shapes_left_out(model, self.provider.name):
            graph: bytes = model.SerializeToString()
        self._kept += len(graph)
        self._graphs[kind, index] = graph
        return graph

    def _made(self, kind: str, index: int, make: Callable[[onnx.ModelProto], onnx.ModelProto]) -> onnx.ModelProto:
        """The graph of a checkpoint: the weights of this one in the graph of an earlier one, where they fit."""
        checkpoint = self._checkpoints[index]
        with naming(checkpoint.name):
            forward = checkpoint.load()
            plan = self._plans.get(kind)
            made = plan.apply(forward) if plan is not None else None
            if made is not None:
                if kind == "gradient":
                    self._alike.add(index)
                return made

            def freed(model: onnx.ModelProto) -> onnx.ModelProto:
                return make(make_batch_dynamic(model, self.provider, threads=self._threads, where=checkpoint.name)[0])

            plan = GradientPlan(forward, freed)
        self._plans[kind] = plan
        return plan.take()


def _input(session: GradientSession) -> str:
    return _takes(session.input_name, session.input_shape, session.input_dtype)


def _input_of(signature: Signature) -> str:
    return _takes(signature.input_name, signature.input_shape, signature.input_dtype)


def _takes(name: str, shape: Sequence[int | None], dtype: np.dtype) -> str:
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    return f"takes {dtype} examples {name!r} of shape ({sizes})"


def _results(signature: Signature) -> str:
    shape = ", ".join(map(str, signature.gradient_shape))
    return f"gives {signature.classes} classes and {signature.gradient_dtype} gradients of shape ({shape})"
