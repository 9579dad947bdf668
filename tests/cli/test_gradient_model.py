"""``vogcore gradient-model``: the file that it writes, and what it refuses."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest


def run(path: str, x: np.ndarray, target: np.ndarray, output: str = "logits") -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: x, "vogcore_target": target.astype(np.int64)}
    return session.run([output, "vogcore_gradient"], feeds)


def slope(path: str, x: np.ndarray, target: np.ndarray, output: str, score) -> np.ndarray:
    """Central differences of a function of the logits, in float32 all the same, so coarse."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name, step = session.get_inputs()[0].name, 1e-2
    found = np.zeros_like(x)
    for j in range(x.shape[1]):
        shift = np.zeros_like(x)
        shift[:, j] = step
        high, low = (session.run([output], {name: x + s})[0].astype(float) for s in (shift, -shift))
        found[:, j] = (score(high, target) - score(low, target)) / (2 * step)
    return found


def logit(z: np.ndarray, target: np.ndarray) -> np.ndarray:
    return z[np.arange(len(z)), target]


def probability(z: np.ndarray, target: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return logit(e / e.sum(1, keepdims=True), target)


@pytest.mark.parametrize(("words", "score"), [([], logit), (["--of", "probability"], probability)])
def test_the_written_model_is_valid_and_computes_the_gradient(words, score, run_folder, cli, tools):
    result = cli("gradient-model", "ckpt-0.onnx", "-o", "gradient.onnx", *words)
    assert (result.status, result.err) == (0, "")
    onnx.checker.check_model("gradient.onnx", full_check=True)
    x, y = tools.examples(8)
    _, gradient = run("gradient.onnx", x, y)
    np.testing.assert_allclose(gradient, slope("ckpt-0.onnx", x, y, "logits", score), rtol=2e-2, atol=2e-3)


def test_it_says_what_was_written(run_folder, cli):
    lines = cli("gradient-model", "ckpt-0.onnx", "-o", "gradient.onnx").out.splitlines()
    assert lines[0].startswith("gradient.onnx: ")
    assert [line.split()[:2] for line in lines[1:]] == [
        ["input", "x"], ["input", "vogcore_target"], ["output", "logits"], ["output", "vogcore_gradient"],
    ]  # fmt: skip
    assert lines[1].split(maxsplit=2)[2] == "float (n, 6)"


def test_names_in_the_model_are_printed_harmlessly(run_folder, cli, tools):
    model = tools.classifier()
    model.graph.input[0].name = model.graph.node[0].input[0] = "x\x1b[2J"
    tools.save(model, run_folder / "evil.onnx", {})
    out = cli("gradient-model", "evil.onnx", "-o", "gradient.onnx").out
    assert "\x1b" not in out
    assert "x\\x1b[2J" in out


def test_wrt_chooses_a_tensor_inside_the_model(run_folder, cli, tools):
    assert cli("gradient-model", "ckpt-0.onnx", "-o", "gradient.onnx", "--wrt", "h").status == 0
    x, y = tools.examples(5)
    _, gradient = run("gradient.onnx", x, y)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load("ckpt-0.onnx").graph.initializer}
    np.testing.assert_allclose(gradient, weights["w2"].T[y], rtol=1e-6)


def test_output_name_chooses_between_several(run_folder, cli, tools):
    tools.save(tools.classifier(more_outputs=True), run_folder / "two.onnx", {})
    tools.refused(cli("gradient-model", "two.onnx", "-o", "gradient.onnx"), "two.onnx", "auxiliary", "--output-name")
    result = cli("gradient-model", "two.onnx", "-o", "gradient.onnx", "--output-name", "auxiliary")
    assert result.status == 0
    x, y = tools.examples(5)
    logits, _ = run("gradient.onnx", x, y, "auxiliary")
    assert logits.shape == (5, 4)


def test_a_file_that_exists_is_replaced_only_on_request(run_folder, cli, tools):
    assert cli("gradient-model", "ckpt-0.onnx", "-o", "gradient.onnx").status == 0
    first = (run_folder / "gradient.onnx").read_bytes()
    tools.refused(cli("gradient-model", "ckpt-1.onnx", "-o", "gradient.onnx"), "gradient.onnx", "--overwrite")
    assert (run_folder / "gradient.onnx").read_bytes() == first
    assert cli("gradient-model", "ckpt-1.onnx", "-o", "gradient.onnx", "--overwrite").status == 0
    assert (run_folder / "gradient.onnx").read_bytes() != first


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["nope.onnx", "-o", "g.onnx"], ["nope.onnx"]),
        (["train.npz", "-o", "g.onnx"], ["train.npz", "not an ONNX model"]),
        ([".", "-o", "g.onnx"], ["folder"]),
        (["ckpt-0.onnx", "-o", "no/g.onnx"], ["no/g.onnx"]),
        (["ckpt-0.onnx", "-o", "g.onnx", "--of", "logits"], ["--of", "logits"]),
        (["ckpt-0.onnx", "-o", "g.onnx", "--wrt", "nope"], ["ckpt-0.onnx", "nope"]),
        (["ckpt-0.onnx", "-o", "g.onnx", "--output-name", "nope"], ["ckpt-0.onnx", "nope"]),
        (["ckpt-0.onnx"], ["--output"]),
        (["-o", "g.onnx"], ["ONNX"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_bad_input(words, named, run_folder, cli, tools):
    before = tools.listing(run_folder)
    tools.refused(cli("gradient-model", *words), *named)
    assert tools.listing(run_folder) == before


def test_a_gradient_model_is_not_differentiated_again(run_folder, cli, tools):
    assert cli("gradient-model", "ckpt-0.onnx", "-o", "gradient.onnx").status == 0
    tools.refused(cli("gradient-model", "gradient.onnx", "-o", "twice.onnx"), "gradient.onnx")
