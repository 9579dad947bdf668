"""Importing the store, and reading nothing, loads neither h5py nor pandas."""

from __future__ import annotations

import pytest

import vogcore.store


def test_data_classes_need_no_h5py(run_python):
    program = (
        "import sys; from vogcore.store import Scores, Direction, check_output; "
        "print([name for name in ('h5py', 'pandas', 'numba', 'onnx') if name in sys.modules])"
    )
    assert run_python(program).stdout == "[]\n"


def test_every_public_name_resolves_and_others_do_not():
    for name in vogcore.store.__all__:
        assert getattr(vogcore.store, name).__name__ == name
        assert name in dir(vogcore.store)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        vogcore.store.nonsense  # noqa: B018
