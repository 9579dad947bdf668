"""Numba's CUDA simulator as the tests need it; does nothing outside of it."""

from __future__ import annotations

import sys
import threading

import numpy as np
from numba import config

__all__ = ["SIMULATED"]

SIMULATED = bool(config.ENABLE_CUDASIM)

if SIMULATED:
    from numba.cuda.simulator import kernelapi

    # The simulator's threads wait for each other by polling, and hold the interpreter for the whole interval.
    sys.setswitchinterval(1e-5)
    _lock = threading.Lock()

    def _shared_array(self, shape, dtype, alignment=None):
        """The array of the block: the simulator (numba-cuda 0.30) gave threads that asked at once one each."""
        caller = sys._getframe(1)
        where = caller.f_code.co_filename, caller.f_lineno
        kind = kernelapi.numpy_support.as_dtype(dtype) if isinstance(dtype, kernelapi.types.Type) else dtype
        with _lock:
            if where not in self._allocations:
                self._allocations[where] = np.empty(shape, kind)
            return self._allocations[where]

    kernelapi.FakeCUDAShared.array = _shared_array
