"""Torch modules as checkpoints: the same numbers, the same graph every time, and training undisturbed."""

import copy
import logging
import re
import subprocess
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import vogcore
from vogcore.errors import DataError, ModelError, SettingsError, StoreError
from vogcore_adapters.torch import export_checkpoint


def convolutional():
    """Zero biases, two BatchNormalizations of one size and Dropout: what value-dependent optimisers trip over."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(8 * 16, 16),
        nn.LayerNorm(16),
        nn.ReLU(),
        nn.Linear(16, 4),
    )
    for layer in model:
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return model


class Attention(nn.Module):
    """Linear layers on a sequence, large enough that exporters hesitate to fold their weights."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 128)
        self.layer = nn.TransformerEncoderLayer(128, 4, 128, batch_first=True)
        self.head = nn.Linear(128, 3)

    def forward(self, x):
        return self.head(self.layer(self.embed(x)).mean(1))


class SharedConvolution(nn.Module):
    """One convolution before two normalisations: folding either into it would spoil the other."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(2, 2, 1)
        self.first, self.second = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        for layer in (self.first, self.second):
            for value in (layer.running_mean, layer.running_var, layer.weight.data, layer.bias.data):
                value.uniform_(0.5, 2)

    def forward(self, x):
        x = self.first(self.convolution(x))
        return self.second(self.convolution(x)).mean((2, 3))


class OneBatchSize(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x.reshape(2, 4))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.drop = nn.Dropout()

    def forward(self, x):
        return self.layer(self.drop(x) * 2 if x.sum() > 0 else x)


def train_steps(model, steps, after_step=lambda step: None):
    torch.manual_seed(1)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(steps):
        x, y = torch.randn(16, 1, 8, 8), torch.randint(0, 4, (16,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
        after_step(step)
    return torch.get_rng_state()


def run(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input": x.numpy()})[0]


def structure(path):
    graph = onnx.load(path).graph
    nodes = [(node.op_type, list(node.input), list(node.output), list(node.attribute)) for node in graph.node]
    return nodes, [(tensor.name, list(tensor.dims), tensor.data_type) for tensor in graph.initializer]


@pytest.fixture(scope="module")
def trained():
    model = convolutional()
    train_steps(model, 5)
    return model


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    path = export_checkpoint(
        trained, torch.randn(1, 1, 8, 8), folder / "c.onnx", step=5, epoch=1, class_names=["a", "b", "c", "d"]
    )
    assert [p.name for p in folder.iterdir()] == ["c.onnx"]
    return path


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_checkpoint_gives_the_logits_of_the_model_in_evaluation_mode(trained, exported, n):
    x = torch.randn(n, 1, 8, 8)
    with torch.no_grad():
        expected = copy.deepcopy(trained).eval()(x).numpy()
    np.testing.assert_allclose(run(exported, x), expected, rtol=1e-5, atol=1e-5)


def test_the_checkpoint_declares_what_scoring_relies_on(exported):
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "vogcore.step": "5",
        "vogcore.epoch": "1",
        "vogcore.class_names": '["a", "b", "c", "d"]',
        "vogcore.version": vogcore.__version__,
    }
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    (image,), (logits,) = model.graph.input, model.graph.output
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", 1, 8, 8]
    assert [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim] == ["batch", 4]


def test_the_graph_holds_layers_only_and_no_path_of_this_machine(exported):
    operators = [node.op_type for node in onnx.load(exported).graph.node]
    assert operators == [
        *("Conv", "Relu", "MaxPool", "Conv", "Relu"),
        *("Reshape", "Gemm", "LayerNormalization", "Relu", "Gemm"),
    ]
    content = exported.read_bytes()
    assert b"stack_trace" not in content
    assert b".py" not in content


def test_an_untrained_model_gives_the_same_graph_as_a_trained_one(exported, tmp_path):
    fresh = export_checkpoint(convolutional(), torch.randn(3, 1, 8, 8), tmp_path / "fresh.onnx")
    assert structure(fresh) == structure(exported)
    assert fresh.read_bytes() != exported.read_bytes()


def test_attention_equals_torch_without_shape_arithmetic_on_the_weights(tmp_path):
    torch.manual_seed(0)
    model = Attention()
    path = export_checkpoint(model, torch.randn(2, 5, 8), tmp_path / "attention.onnx", opset=20)
    x = torch.randn(4, 5, 8)
    with torch.no_grad():
        expected = model.eval()(x).numpy()
    np.testing.assert_allclose(run(path, x), expected, rtol=1e-5, atol=1e-5)
    exported_model = onnx.load(path)
    assert exported_model.opset_import[0].version == 20
    weights = {tensor.name for tensor in exported_model.graph.initializer}
    assert not [n for n in exported_model.graph.node if n.op_type == "Transpose" and n.input[0] in weights]


def test_a_convolution_used_twice_keeps_its_weights(tmp_path):
    torch.manual_seed(0)
    model = SharedConvolution()
    path = export_checkpoint(model, torch.randn(2, 2, 3, 3), tmp_path / "shared.onnx")
    x = torch.randn(4, 2, 3, 3)
    with torch.no_grad():
        expected = model.eval()(x).numpy()
    np.testing.assert_allclose(run(path, x), expected, rtol=1e-5, atol=1e-5)


def test_training_goes_on_bit_for_bit_as_without_exports(tmp_path):
    plain, watched = convolutional(), convolutional()
    state = train_steps(plain, 5)

    def export(step):
        if step in (0, 2):
            gradients = [p.grad.clone() for p in watched.parameters()]
            export_checkpoint(watched, torch.ones(2, 1, 8, 8), tmp_path / f"{step}.onnx", step=step)
            assert all(torch.equal(p.grad, g) for p, g in zip(watched.parameters(), gradients, strict=True))

    assert torch.equal(train_steps(watched, 5, export), state)
    ours = watched.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, ours[name]), name
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("fails", [False, True])
def test_every_training_flag_is_put_back(tmp_path, fails):
    model = nn.Sequential(Branching()) if fails else nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 3))
    model.train()
    model[0].eval()
    flags = [module.training for module in model.modules()]
    assert len(set(flags)) == 2
    if fails:
        with pytest.raises(ModelError, match=r"Sequential to ONNX: .*data-dependent"):
            export_checkpoint(model, torch.randn(2, 4), tmp_path / "m.onnx")
        assert list(tmp_path.iterdir()) == []
    else:
        export_checkpoint(model, torch.randn(2, 4), tmp_path / "m.onnx")
    assert [module.training for module in model.modules()] == flags


def test_a_model_that_fixes_the_batch_size_is_refused_with_advice(tmp_path):
    with pytest.raises(ModelError, match=r"OneBatchSize.*one batch size only.*-1"):
        export_checkpoint(OneBatchSize(), torch.randn(2, 4), tmp_path / "m.onnx")


def test_export_inside_autocast_and_of_a_compiled_model_is_the_plain_export(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3))
    plain = export_checkpoint(model, torch.ones(2, 4), tmp_path / "plain.onnx")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wrapped = export_checkpoint(nn.DataParallel(torch.compile(model)), torch.ones(2, 4), tmp_path / "wrapped.onnx")
    assert wrapped.read_bytes() == plain.read_bytes()


def test_nothing_is_printed_logged_or_warned(tmp_path, capfd, caplog):
    level = logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export_checkpoint(nn.Sequential(nn.Linear(4, 3)), torch.ones(2, 4), tmp_path / "m.onnx")
    assert not caught
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.onnx").level == level


@pytest.mark.parametrize("module", ["torch", "onnxscript"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(tmp_path, module):
    # A process of its own: a package that was imported already cannot be taken away from torch without damage.
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from vogcore.errors import VogcoreError\n"
        "from vogcore_adapters.torch import export_checkpoint\n"
        "try:\n    export_checkpoint(None, None, 'm.onnx')\nexcept VogcoreError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(rf".*needs {module}.*vogcore\[torch\].*\n", run.stdout), run.stdout + run.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"example_input": np.ones((2, 4))}, DataError, "example_input"),
        ({"example_input": torch.ones(0, 4)}, DataError, "at least one example"),
        ({"example_input": torch.tensor(1.0)}, DataError, "at least one example"),
        ({"opset": 17}, SettingsError, "18"),
        ({"step": -3}, SettingsError, "step"),
        ({"path": "no/such/folder.onnx"}, StoreError, "folder.onnx"),
    ],
)
def test_arguments_that_cannot_work_are_refused(tmp_path, monkeypatch, arguments, error, message):
    monkeypatch.chdir(tmp_path)
    arguments = {"example_input": torch.ones(2, 4), "path": "m.onnx", **arguments}
    with pytest.raises(error, match=message):
        export_checkpoint(nn.Sequential(nn.Linear(4, 3)), **arguments)
    assert list(tmp_path.iterdir()) == []
