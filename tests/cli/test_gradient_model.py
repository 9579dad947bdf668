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


def test_a_target_in_the_graph_takes_the_place_of_the_input(run_folder, cli, tools):
    x, _ = tools.examples(6)
    forward = onnxruntime.InferenceSession("ckpt-0.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    for target, y in (("predicted", forward.argmax(1)), ("2", np.full(6, 2))):
        result = cli("gradient-model", "ckpt-0.onnx", "-o", f"{target}.onnx", "--of", "loss", "--target", target)
        assert result.status == 0
        assert "vogcore_target" not in result.out
        assert cli("gradient-model", "ckpt-0.onnx", "-o", f"{target}-input.onnx", "--of", "loss").status == 0
        session = onnxruntime.InferenceSession(f"{target}.onnx", providers=["CPUExecutionProvider"])
        got = session.run(["vogcore_gradient"], {"x": x})[0]
        np.testing.assert_allclose(got, run(f"{target}-input.onnx", x, y)[1], rtol=1e-5, atol=1e-6)


def test_a_column_of_a_regression(run_folder, cli, tools):
    words = ["gradient-model", "ckpt-0.onnx", "--of", "output", "--wrt", "h"]
    assert cli(*words, "-o", "sum.onnx").status == 0
    assert cli(*words, "-o", "one.onnx", "--target", "3").status == 0
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load("ckpt-0.onnx").graph.initializer}["w2"]
    x, _ = tools.examples(2)
    for name, row in (("sum.onnx", weights.sum(1)), ("one.onnx", weights[:, 3])):
        session = onnxruntime.InferenceSession(name, providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(session.run(["vogcore_gradient"], {"x": x})[0], [row, row], rtol=1e-5)


def test_scoring_with_a_model_whose_target_is_no_input_is_refused(run_folder, cli):
    """A session for scoring gives the classes itself."""
    from vogcore.errors import ModelError
    from vogcore.runtime import GradientSession

    assert cli("gradient-model", "ckpt-0.onnx", "-o", "g.onnx", "--target", "predicted").status == 0
    with pytest.raises(ModelError, match=r"lacks the input vogcore_target, .*vogcore\.gradient_model"):
        GradientSession(onnx.load("g.onnx"), provider="cpu", threads=1)


def test_the_mean_over_an_axis(run_folder, cli, tools):
    for name, words in (("whole.onnx", []), ("mean.onnx", ["--channels", "mean", "--channel-axis", "1"])):
        assert cli("gradient-model", "ckpt-0.onnx", "-o", name, *words).status == 0
    x, y = tools.examples(8)
    (_, whole), (_, mean) = run("whole.onnx", x, y), run("mean.onnx", x, y)
    np.testing.assert_allclose(mean, whole.mean(1), rtol=1e-5, atol=1e-7)


def test_an_axis_that_is_none_of_the_channels_is_refused(run_folder, cli, tools):
    result = cli("gradient-model", "ckpt-0.onnx", "-o", "g.onnx", "--channels", "mean", "--channel-axis", "5")
    assert result.status == 2
    assert "channel_axis=5 is no channel axis" in result.err
    assert not (run_folder / "g.onnx").exists()
