"""Gradient graphs of the checkpoints, made once, and sessions on them, one alive at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import onnx

from vogcore.autodiff import gradient_model
from vogcore.errors import CheckpointError, ModelError
from vogcore.graph import logits_model
from vogcore.runtime import ForwardSession, GradientSession, Provider, make_batch_dynamic
from vogcore.scoring.checkpoints import Checkpoint
from vogcore.scoring.settings import Settings

__all__ = ["Signature", "Sessions"]

_GRAPH_BUDGET = 1 << 30
"""Bytes of gradient graphs that are kept; beyond it they are made anew for every block of examples."""


class Signature(NamedTuple):
    """What all checkpoints of a run must have in common."""

    input_name: str
    input_shape: tuple[int | None, ...]
    input_dtype: str
    classes: int | None


class Sessions:
    """Sessions for a list of checkpoints.

    Only one session is alive at a time: the arena of each holds the activations of a batch, and memory must not grow
    with the number of checkpoints. With large blocks, making a session anew costs about one percent of using it.
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
        self._checkpoints, self._settings, self._threads = checkpoints, settings, threads
        self._wrt, self._output = wrt, output
        self._graphs: dict[int, bytes] = {}
        self._kept = 0

    def check(self) -> Signature:
        """Build every gradient graph once, so that nothing that can be known now fails hours later.

        Raises:
            CheckpointError: a checkpoint differs from the first in input shape, type or number of classes.
            ModelError: a checkpoint cannot be differentiated.
        """
        first: Signature | None = None
        for index, checkpoint in enumerate(self._checkpoints):
            session = self.gradient(index)
            here = Signature(
                session.input_name, tuple(session.input_shape), str(session.input_dtype), session.n_classes
            )
            if first is None:
                first = here
            elif here != first:
                raise CheckpointError(
                    f"Checkpoint {checkpoint.name} takes {_input(here)} and gives {_classes(here)}, but "
                    f"{self._checkpoints[0].name} takes {_input(first)} and gives {_classes(first)}; score checkpoints "
                    "of one training run only."
                )
            del session
        assert first is not None
        return first

    def gradient(self, index: int) -> GradientSession:
        """A session on the gradient graph of one checkpoint."""
        graph = self._graphs.get(index)
        name = self._checkpoints[index].name
        if graph is None:
            with _named(name):
                model = gradient_model(self._forward(index), of=self._settings.of, wrt=self._wrt, output=self._output)
            size = model.ByteSize()
            if self._kept + size > _GRAPH_BUDGET:
                return GradientSession(model, provider=self.provider, threads=self._threads, where=name)
            graph = model.SerializeToString()
            self._graphs[index] = graph
            self._kept += size
        return GradientSession(graph, provider=self.provider, threads=self._threads, where=name)

    def forward(self, index: int) -> ForwardSession:
        """A session on the forward graph of one checkpoint, giving the logits alone."""
        model = logits_model(self._forward(index), self._output)
        return ForwardSession(model, provider=self.provider, threads=self._threads, where=self._checkpoints[index].name)

    def _forward(self, index: int) -> onnx.ModelProto:
        checkpoint = self._checkpoints[index]
        model, _ = make_batch_dynamic(checkpoint.load(), self.provider, threads=self._threads, where=checkpoint.name)
        return model


@contextlib.contextmanager
def _named(checkpoint: str) -> Iterator[None]:
    """Put the checkpoint's name in front of a message that does not have it."""
    try:
        yield
    except ModelError as error:
        if checkpoint not in str(error):
            error.args = (f"{checkpoint}: {error}",)
        raise


def _input(signature: Signature) -> str:
    sizes = ", ".join("any" if size is None else str(size) for size in signature.input_shape)
    return f"{signature.input_dtype} examples {signature.input_name!r} of shape ({sizes})"


def _classes(signature: Signature) -> str:
    return "an unknown number of classes" if signature.classes is None else f"{signature.classes} classes"
