from __future__ import annotations

import pytest

from vogcore.runtime import providers


@pytest.fixture(autouse=True)
def fresh_probe():
    """Every test tries CUDA anew, and leaves no invented answer behind."""
    providers._probe_cuda.cache_clear()
    yield
    providers._probe_cuda.cache_clear()
