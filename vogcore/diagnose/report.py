"""What is found out about a model. Plain data, so that it can be printed, stored as JSON and compared."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["ModelReport", "Operator", "Problem", "SelfCheck", "Tensor"]


@dataclass(frozen=True)
class Tensor:
    """A value of the graph."""

    name: str
    type: str
    """Element type as ONNX calls it, in small letters; "unknown" where it is not known."""
    shape: tuple[int | str | None, ...] | None
    """An integer, a symbol or None for each axis; None where not even the rank is known."""


@dataclass(frozen=True)
class Operator:
    """A node of the graph."""

    op: str
    """Operator, with its domain in front where that is not the default one."""
    name: str
    output: str
    """Its first output."""


@dataclass(frozen=True)
class Problem:
    """A node on the path that stops the gradient."""

    op: str
    node: str
    missing: bool
    """True where the operator has no rule at all, False where its rule does not cover this use."""
    reason: str


@dataclass(frozen=True)
class SelfCheck:
    """The gradient graph beside central differences of the forward graph, on random input in ONNX Runtime."""

    verdict: str
    """"agrees", "disagrees", "inconclusive" (the differences are too noisy to tell) or "not run"."""
    reason: str = ""
    """Why, in one sentence, unless it agrees."""
    examples: int = 0
    directions: int = 0
    median_error: float | None = None
    """Of the relative errors of all directional derivatives: |difference - gradient| over the size that the directional
    derivative has on average (or its own, where that is larger)."""
    largest_error: float | None = None
    tolerance: float | None = None
    """What the median may be."""
    forward_error: float | None = None
    """Largest difference between the output of the model as it is and as it was prepared for differentiation, over
    the largest number of that output."""
    independent: bool | None = None
    """False where an example's scores depend on the other examples of its batch."""


@dataclass(frozen=True)
class ModelReport:
    """What :func:`vogcore.check_model` found."""

    model: str
    """Path, or "the model"."""
    of: str
    target: str
    bytes: int
    """Size of the model without weights in files of their own."""
    ir_version: int
    opsets: dict[str, int]
    """Domain -> version; the default domain is "ai.onnx"."""
    producer: str
    nodes: int
    """Nodes of the model as it is; those of branches, loop bodies and local functions are not counted."""
    weights: int
    """Numbers in the initializers of the graph as it was prepared."""
    weight_bytes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch: str = ""
    """"open", "fixed at 1", ... ; what is known of the first axis of the inputs."""
    wrt: Tensor | None = None
    scores: Tensor | None = None
    """Where the logits are, or the output that ``of="output"`` chose."""
    scores_node: Operator | None = None
    """The node that computes them."""
    softmax: str | None = None
    """Softmax or LogSoftmax, where one behind the logits was looked through."""
    path: tuple[Operator, ...] = ()
    """Nodes between ``wrt`` and the scores through which a change passes, in graph order."""
    problems: tuple[Problem, ...] = ()
    """Every node on the path that stops the gradient."""
    candidates: tuple[Tensor, ...] = ()
    """Where the choice of ``wrt`` is open: floating-point tensors that could be chosen."""
    refusal: str | None = None
    """Why the model cannot be differentiated as asked, in one sentence."""
    gradient_nodes: int | None = None
    """Nodes of the gradient graph."""
    self_check: SelfCheck = field(default_factory=lambda: SelfCheck("not run"))

    @property
    def differentiable(self) -> bool:
        """Whether the gradient graph could be made."""
        return self.refusal is None

    @property
    def ok(self) -> bool:
        """Whether it could be made and its numbers are right."""
        return self.differentiable and self.self_check.verdict == "agrees"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it: a figure that is no finite number is None."""
        content = asdict(self)
        check = content["self_check"]
        for key, value in check.items():
            if isinstance(value, float) and not math.isfinite(value):
                check[key] = None
        return {"ok": self.ok, "differentiable": self.differentiable, **content}
