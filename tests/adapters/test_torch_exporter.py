"""CheckpointExporter in a torch loop: the step hook, distributed training, what it takes."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from vogcore.errors import DataError
from vogcore_adapters.schedule import every_n_steps
from vogcore_adapters.torch import CheckpointExporter, called_by, to_onnx


def training(optimiser, model, steps):
    for _ in range(steps):
        optimiser.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        optimiser.step()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 2))


def test_watching_an_optimiser_changes_nothing_in_its_training(tmp_path):
    plain, watched = network(), network()
    plainly, watchfully = (torch.optim.Adam(model.parameters()) for model in (plain, watched))
    torch.manual_seed(1)
    training(plainly, plain, 6)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    exporter = CheckpointExporter(tmp_path, torch.ones(1, 3), schedule=every_n_steps(2))
    with exporter.watch(watched, watchfully):
        training(watchfully, watched, 5)
    training(watchfully, watched, 1)  # outside of the block
    assert [export.step for export in exporter.exports] == [2, 4]
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_hook_goes_when_the_training_fails(tmp_path):
    model = network()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    exporter = CheckpointExporter(tmp_path, torch.ones(1, 3), schedule=every_n_steps(1))
    with pytest.raises(RuntimeError, match="mine"), exporter.watch(model, optimiser):
        raise RuntimeError("mine")
    training(optimiser, model, 1)
    assert exporter.exports == []


def test_one_process_of_a_distributed_training_writes(tmp_path):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        exporter = CheckpointExporter(tmp_path, torch.ones(1, 3))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.distributed, "get_rank", lambda *_: 1)
            assert exporter.save(network(), 1) == tmp_path / "ckpt-1.onnx"
            assert list(tmp_path.iterdir()) == []
        assert exporter.save(network(), 1).exists()
    finally:
        torch.distributed.destroy_process_group()


def test_an_example_may_come_later_but_not_never(tmp_path):
    exporter = CheckpointExporter(tmp_path, None)
    with pytest.raises(DataError, match="example_input must be a torch tensor"):
        exporter.save(network(), 1)
    exporter.example_input = torch.ones(1, 3)
    assert exporter.save(network(), 1).exists()


def test_a_model_can_be_called_in_another_way():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, *, image):
            return {"scores": self.layer(image)}

    exported = to_onnx(called_by(Wide(), lambda model, x: model(image=x)["scores"]), torch.ones(1, 3))
    assert [node.op_type for node in exported.graph.node] == ["Gemm"]
    onnx.checker.check_model(exported, full_check=True)
    assert {tuple(t.dims) for t in exported.graph.initializer} == {(2, 3), (2,)}
    assert np.prod([d.dim_value for d in exported.graph.input[0].type.tensor_type.shape.dim][1:]) == 3
