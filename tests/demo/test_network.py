"""The NumPy network against finite differences, torch, and ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import vogcore
from vogcore.demo import Adam, Network, export_network
from vogcore.errors import SettingsError, StoreError


@pytest.fixture
def batch():
    rng = np.random.default_rng(3)
    return rng.random((5, 1, 8, 8)), rng.integers(0, 10, 5)


def torch_logits(network, parameters, x):
    hidden = torch.relu(torch.conv2d(x, parameters["conv1.weight"], parameters["conv1.bias"], padding=1))
    hidden = torch.max_pool2d(hidden, 2)
    hidden = torch.relu(torch.conv2d(hidden, parameters["conv2.weight"], parameters["conv2.bias"], padding=1))
    return hidden.flatten(1) @ parameters["dense.weight"].T + parameters["dense.bias"]


def torch_parameters(network):
    return {name: torch.tensor(value, requires_grad=True) for name, value in network.parameters.items()}


def test_parameter_gradients_equal_finite_differences(batch):
    x, y = batch
    network = Network(1, channels=(3, 4), dtype=np.float64)
    _, gradients = network.loss_and_gradients(x, y)
    rng = np.random.default_rng(0)
    step = 1e-6
    for name, value in network.parameters.items():
        for index in rng.choice(value.size, min(20, value.size), replace=False):
            position = np.unravel_index(index, value.shape)
            kept = value[position]
            value[position] = kept + step
            above, _ = network.loss_and_gradients(x, y)
            value[position] = kept - step
            below, _ = network.loss_and_gradients(x, y)
            value[position] = kept
            assert gradients[name][position] == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-8), name


def test_loss_and_gradients_equal_torch_autograd(batch):
    x, y = batch
    network = Network(2, dtype=np.float64)
    loss, gradients = network.loss_and_gradients(x, y)
    parameters = torch_parameters(network)
    reference = torch.nn.functional.cross_entropy(torch_logits(network, parameters, torch.tensor(x)), torch.tensor(y))
    reference.backward()
    assert loss == pytest.approx(reference.item(), rel=1e-12)
    assert gradients.keys() == parameters.keys()
    for name, parameter in parameters.items():
        np.testing.assert_allclose(gradients[name], parameter.grad.numpy(), rtol=1e-9, atol=1e-13, err_msg=name)


def test_input_gradients_equal_torch_autograd(batch):
    x, y = batch
    network = Network(2, dtype=np.float64)
    image = torch.tensor(x, requires_grad=True)
    logits = torch_logits(network, torch_parameters(network), image)
    logits.gather(1, torch.tensor(y)[:, None]).sum().backward()
    np.testing.assert_allclose(network.input_gradient(x, y), image.grad.numpy(), rtol=1e-9, atol=1e-13)


def test_adam_equals_torch():
    rng = np.random.default_rng(0)
    value = rng.standard_normal((3, 4))
    reference = torch.nn.Parameter(torch.tensor(value))
    theirs = torch.optim.Adam([reference], lr=0.01)
    ours = Adam({"w": value}, 0.01)
    for _ in range(7):
        gradient = rng.standard_normal((3, 4))
        ours.update({"w": gradient})
        reference.grad = torch.tensor(gradient)
        theirs.step()
    assert ours.step == 7
    np.testing.assert_allclose(value, reference.detach().numpy(), rtol=1e-10)


def test_the_seed_alone_decides_the_weights():
    one, same, other = Network(4), Network(4), Network(5)
    for name, value in one.parameters.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, same.parameters[name])
    assert not np.array_equal(one.parameters["dense.weight"], other.parameters["dense.weight"])


def test_odd_images_are_refused():
    with pytest.raises(SettingsError, match="even"):
        Network(image_size=7)


@pytest.mark.parametrize("n", [1, 5])
def test_the_checkpoint_gives_the_logits_of_the_network(tmp_path, n):
    network = Network(6)
    rng = np.random.default_rng(n)
    for name in ("conv1.bias", "conv2.bias", "dense.bias"):
        network.parameters[name] += rng.standard_normal(network.parameters[name].shape).astype(np.float32)
    path = export_network(network, tmp_path / "net.onnx")
    x = rng.random((n, 1, 8, 8), dtype=np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": x})
    np.testing.assert_allclose(logits, network.forward(x), rtol=1e-5, atol=1e-5)


def test_the_checkpoint_declares_what_scoring_relies_on(tmp_path):
    path = export_network(Network(0), tmp_path / "net.onnx", step=43, epoch=1, class_names=["nul", "één"])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "vogcore.step": "43",
        "vogcore.epoch": "1",
        "vogcore.class_names": '["nul", "één"]',
        "vogcore.version": vogcore.__version__,
    }
    (image,), (logits,) = model.graph.input, model.graph.output
    assert (image.name, logits.name) == ("image", "logits")
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", 1, 8, 8]
    assert [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim] == ["batch", 10]
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"nowhere.*the folder does not exist"):
        export_network(Network(0), tmp_path / "nowhere" / "net.onnx")
