"""Checkpoints from scikit-learn: loops over ``partial_fit``, and estimators that go on (``warm_start``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from vogcore.errors import DataError, ModelError
from vogcore_adapters import exporter
from vogcore_adapters._require import missing

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

__all__ = ["CheckpointExporter", "to_onnx"]

RAW = ("SGDClassifier", "Perceptron")
# From some opset of ai.onnx.ml on skl2onnx writes operators that ONNX Runtime does not have.
OPSETS = {"": 18, "ai.onnx.ml": 3}


class CheckpointExporter(exporter.CheckpointExporter):
    """Writes checkpoints of a classifier, or of a pipeline that ends in one, while it is trained::

        exporter = CheckpointExporter("ckpts", X[:1], schedule=every_n_steps(10))
        for X_batch, y_batch in batches:
            classifier.partial_fit(X_batch, y_batch, classes=classes)
            exporter.step(classifier)

    or with an estimator that goes on where it was (``warm_start=True, max_iter=1``)::

        for epoch in range(20):
            classifier.fit(X, y)
            exporter.step(classifier)
            exporter.end_epoch(classifier)

    Args:
        folder: where the checkpoints go; made if it does not exist.
        example_input: examples (n, features); only their number of features and their type matter.
        **options: see :class:`vogcore_adapters.exporter.Options`; ``class_names`` are by default ``classes_``.

    Raises:
        VogcoreError: as :class:`vogcore_adapters.exporter.CheckpointExporter`, and skl2onnx is missing.
    """

    def __init__(
        self, folder: str | os.PathLike[str], example_input: npt.ArrayLike, **options: Unpack[exporter.Options]
    ) -> None:
        _import_skl2onnx()
        super().__init__(folder, lambda model: to_onnx(model, example_input), **options)

    def save(self, model: Any, step: int, epoch: int | None = None) -> Path:
        """As the method of the base class, with the estimator's ``classes_`` as names where none were given."""
        if self.class_names is None and hasattr(model, "classes_"):
            self.class_names = [str(name) for name in model.classes_]
        return super().save(model, step, epoch)


def to_onnx(model: Any, example_input: npt.ArrayLike) -> onnx.ModelProto:
    """A fitted classifier or pipeline as it is now.

    Args:
        model: the estimator.
        example_input: examples (n, features).

    Returns:
        The model, with one float32 input (batch, features), and the probabilities of the classes as output, or the
        values of the decision function of an ``SGDClassifier`` and of what has no probabilities.

    Raises:
        VogcoreError: skl2onnx is missing.
        DataError: ``example_input`` is not a table of numbers with at least one row.
        ModelError: the estimator is not fitted yet, or skl2onnx cannot export it.
    """
    import numpy as np

    skl2onnx = _import_skl2onnx()
    from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs

    try:
        x = np.asarray(example_input, np.float32)[:1]
    except (TypeError, ValueError):
        x = np.zeros(0, np.float32)
    if x.ndim != 2 or len(x) < 1:
        raise DataError("example_input must be a table of numbers (n, features) with at least one row.")
    name, last = type(model).__name__, model.steps[-1][1] if hasattr(model, "steps") else model
    # Probabilities of several independent classifiers, divided by their sum, have no logits but the decision values.
    options = {"zipmap": False, **({"raw_scores": True} if type(last).__name__ in RAW else {})}
    try:
        try:
            exported = skl2onnx.to_onnx(model, x, target_opset=OPSETS, options={id(last): options})
        except NameError:  # an estimator that has no such option
            exported = skl2onnx.to_onnx(model, x, target_opset=OPSETS)
        # The labels, which may be text, are no part of what is differentiated.
        scores = exported.graph.output[-1]
        selected = select_model_inputs_outputs(exported, scores.name)
        selected.graph.output[0].CopyFrom(scores)  # which it leaves without a type
        return selected
    except Exception as error:
        cause = str(error).strip().split("\n")[0]
        raise ModelError(f"skl2onnx cannot export {name}: {type(error).__name__}: {cause}") from error


def _import_skl2onnx() -> Any:
    try:
        import skl2onnx
    except ImportError as error:
        raise missing(error, "sklearn", "Exporting a scikit-learn estimator") from error
    return skl2onnx
