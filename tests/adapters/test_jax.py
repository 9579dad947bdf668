"""The adapter for JAX, in an environment that has it."""

from .conftest import ROOT


def test_what_the_adapter_promises(run_program, tmp_path):
    run_program("flax", ROOT / "tests" / "adapters" / "training" / "check_jax.py", tmp_path)
    assert [path.name for path in sorted((tmp_path / "linen").iterdir())] == ["ckpt-1.onnx", "ckpt-2.onnx"]
