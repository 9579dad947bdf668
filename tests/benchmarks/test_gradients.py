"""The benchmark of gradient speed: what is timed is right, and the table says what was measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import _speed_models, gradients
from benchmarks._speed_models import MODELS, SpeedModel


@pytest.fixture
def tiny(monkeypatch):
    """A small network in the list of networks."""

    def make() -> nn.Module:
        layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(8, 10))

    monkeypatch.setitem(MODELS, "tiny", SpeedModel(make, 4, 12, 1.0))
    return "tiny"


def test_every_contender_computes_the_same_gradient(tiny, tmp_path):
    with torch.random.fork_rng():
        gradients._export(tiny, tmp_path)
        contenders = [name for name in gradients.CONTENDERS if name != "torch.compile"]
        found = {name: gradients._prepare(tiny, name, 1, tmp_path) for name in contenders}
    step, reference, _ = found["torch eager"]
    assert reference.shape == (4, 3, 12, 12)
    np.testing.assert_array_equal(step().numpy(), reference)
    np.testing.assert_allclose(found["torch channels_last"][1], reference, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found["gradient"][1], reference, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["channel mean"][1], reference.mean(1), rtol=1e-4, atol=1e-6)
    (logits,) = found["forward"][0]()
    network, x = MODELS[tiny].build()
    np.testing.assert_allclose(logits, network(x).numpy(), rtol=1e-4, atol=1e-5)
    (again,) = found["gradient"][0]()
    np.testing.assert_array_equal(again, found["gradient"][1])
    for contender in ("forward", *gradients.OURS):
        assert {"transform_s", "session_s", "forward_mib", "model_mib"} <= set(found[contender][2])


@pytest.mark.parametrize("name", [name for name in MODELS if "224" not in name and "256" not in name])
def test_the_networks_are_those_of_the_table(name):
    network, _ = MODELS[name].build()
    weights = sum(parameter.numel() for parameter in network.parameters())
    assert weights == {"resnet18-cifar-b64": 11_173_962, "vit-d192-l4-b64": 1_803_850}[name]
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training


def results() -> dict:
    """Medians 30, 20, 40 (torch), 5 (forward), 10 and 8 (ours)."""
    medians = dict(zip(gradients.CONTENDERS, (30.0, 20.0, 40.0, 5.0, 10.0, 8.0), strict=True))
    entries: dict = {name: {"ms": [ms + 50, ms, ms - 1], "peak_mib": 100.0} for name, ms in medians.items()}
    facts = {"transform_s": 0.1, "session_s": 0.2, "forward_mib": 3.0, "model_mib": 3.1, "median_error": 2e-7}
    entries["gradient"] |= facts
    return entries


def test_ratios_are_against_the_best_of_torch_and_the_forward_pass():
    assert gradients.ratios(results()) == {
        "over_torch": 2.0, "over_forward": 2.0, "mean_over_torch": 2.5, "mean_over_forward": 1.6,
    }  # fmt: skip


def test_a_contender_that_did_not_run_leaves_its_cells_empty():
    alone = {name: entry for name, entry in results().items() if name in ("forward", "gradient")}
    assert gradients.row("mlp-b256", alone) == "| mlp-b256 | - | - | - | 5.0 | 10.0 | - | - | 2.00 | - | - |"


def test_the_report_has_a_row_for_each_network_in_both_tables():
    record = {
        "machine": {"processor": "a processor"}, "threads": 2, "rounds": 3, "created": "2026-01-01",
        "versions": {"torch": "2"}, "models": {"mlp-b256": results()},
    }  # fmt: skip
    lines = gradients.markdown(record).splitlines()
    rows = [line for line in lines if line.startswith("| mlp-b256 |")]
    assert len(rows) == 2
    for row, head in zip(rows, [line for line in lines if line.startswith("| network |")], strict=True):
        assert row.count("|") == head.count("|")
    assert "mlp-b256 1.1x" in gradients.markdown(record)


def test_the_command_refuses_unknown_networks(capsys):
    with pytest.raises(SystemExit) as stopped:
        gradients.main(["--models", "lenet"])
    assert stopped.value.code == 2
    assert "lenet" in capsys.readouterr().err
    assert _speed_models.CLASSES == 10
