"""Every error and warning that vogcore raises.

A message is one sentence for the person who has to act on it: what was wrong, where (file, dataset, node), what to
do. The command line prints the message alone and exits with status 2.
"""

__all__ = [
    "CheckpointError",
    "DataError",
    "GradientError",
    "ModelError",
    "OutputExistsError",
    "ProviderError",
    "SettingsError",
    "StoreError",
    "UnsupportedOpError",
    "VogcoreError",
    "VogcoreWarning",
]


class VogcoreError(Exception):
    """Base of every error that vogcore raises on purpose."""


class ModelError(VogcoreError):
    """An ONNX model cannot be read, or cannot be differentiated as asked."""


class UnsupportedOpError(ModelError):
    """A node on the path from the input to the logits has an operator without a gradient rule.

    Attributes:
        op: operator type, with its domain in front where that is not the default one.
        node: name of the node, or of its first output where the node has no name.
    """

    def __init__(self, message: str, *, op: str, node: str) -> None:
        super().__init__(message)
        self.op = op
        self.node = node


class CheckpointError(VogcoreError):
    """The checkpoints cannot be scored together: too few, or not of one architecture."""


class DataError(VogcoreError):
    """Examples or labels cannot be read, or do not fit together or the model."""


class GradientError(VogcoreError):
    """A gradient is not finite, or gradients do not fit together."""


class SettingsError(VogcoreError):
    """A setting has an unknown value, or two settings exclude each other."""


class ProviderError(VogcoreError):
    """The requested execution provider cannot run here."""


class StoreError(VogcoreError):
    """A vogcore file cannot be read or written."""


class OutputExistsError(StoreError):
    """The output path exists and overwriting was not asked for."""


class VogcoreWarning(UserWarning):
    """Something about a run that its reader must know, though the run completed."""
