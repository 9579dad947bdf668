"""Models run on ONNX Runtime: providers, sessions, batches. The only layer that imports onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vogcore._lazy import lazy

if TYPE_CHECKING:
    from vogcore.runtime._shapes import shapes_left_out as shapes_left_out
    from vogcore.runtime._threads import cpu_counts as cpu_counts
    from vogcore.runtime.batch import make_batch_dynamic as make_batch_dynamic
    from vogcore.runtime.device_output import DeviceOutput as DeviceOutput
    from vogcore.runtime.device_output import keeps_gradients as keeps_gradients
    from vogcore.runtime.providers import Provider as Provider
    from vogcore.runtime.providers import available_providers as available_providers
    from vogcore.runtime.providers import choose_provider as choose_provider
    from vogcore.runtime.providers import installed_distributions as installed_distributions
    from vogcore.runtime.providers import probe_cuda as probe_cuda
    from vogcore.runtime.providers import repair_command as repair_command
    from vogcore.runtime.session import ForwardSession as ForwardSession
    from vogcore.runtime.session import GradientSession as GradientSession
    from vogcore.runtime.session import Session as Session

__all__ = [
    "Provider",
    "choose_provider",
    "Session",
    "GradientSession",
    "ForwardSession",
    "make_batch_dynamic",
    "shapes_left_out",
    "DeviceOutput",
    "keeps_gradients",
    "available_providers",
    "cpu_counts",
    "installed_distributions",
    "probe_cuda",
    "repair_command",
]

_HOME = {
    "Provider": "vogcore.runtime.providers",
    "choose_provider": "vogcore.runtime.providers",
    "Session": "vogcore.runtime.session",
    "GradientSession": "vogcore.runtime.session",
    "ForwardSession": "vogcore.runtime.session",
    "make_batch_dynamic": "vogcore.runtime.batch",
    "shapes_left_out": "vogcore.runtime._shapes",
    "DeviceOutput": "vogcore.runtime.device_output",
    "keeps_gradients": "vogcore.runtime.device_output",
    "available_providers": "vogcore.runtime.providers",
    "cpu_counts": "vogcore.runtime._threads",
    "installed_distributions": "vogcore.runtime.providers",
    "probe_cuda": "vogcore.runtime.providers",
    "repair_command": "vogcore.runtime.providers",
}

__getattr__, __dir__ = lazy(__name__, _HOME)
