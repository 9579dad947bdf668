"""Names by which a gradient graph is recognised: written by the differentiator, read by the runtime."""

__all__ = ["CHANNELS_KEY", "COTANGENT", "GRADIENT", "LOGITS_KEY", "OF_KEY", "TARGET", "TARGET_KEY", "WRT_KEY"]

TARGET = "vogcore_target"
"""Added input: class index of every example, int64 (N,)."""
COTANGENT = "vogcore_cotangent"
"""Added input of a vector-Jacobian product: the cotangent of the output, of its shape and type."""
GRADIENT = "vogcore_gradient"
"""Added output: the gradient, with the shape and type of what it is taken with respect to."""

OF_KEY, WRT_KEY, LOGITS_KEY, CHANNELS_KEY = "vogcore.of", "vogcore.wrt", "vogcore.logits", "vogcore.channels"
"""Entries of ``metadata_props``: what was differentiated, with respect to which value, the name of the logits, and
that the gradient is averaged over its channels ("mean")."""
TARGET_KEY = "vogcore.target"
"""Entry that says which class was differentiated, where that is no input: "predicted", "sum" or a class index."""
