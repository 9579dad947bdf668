"""The Keras callback, in a process with the backend tensorflow, which can take several steps together."""

from .conftest import ROOT


def test_what_the_callback_promises(run_program, tmp_path):
    run_program("keras-tensorflow", ROOT / "tests" / "adapters" / "training" / "check_keras.py", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["on", "several", "twice"]
