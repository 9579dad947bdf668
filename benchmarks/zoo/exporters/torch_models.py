"""Which torch network goes through which exporter at which opsets."""

from __future__ import annotations

from benchmarks.zoo.entry import Entry
from benchmarks.zoo.exporters.torch_export import entry
from benchmarks.zoo.models import (
    recurrent,
    tabular,
    text,
    vision_attention,
    vision_classic,
    vision_mobile,
    vision_residual,
)
from benchmarks.zoo.models.spec import Network

__all__ = ["NETWORKS", "entries"]

FAMILIES = (tabular, vision_classic, vision_residual, vision_mobile, vision_attention, text, recurrent)
NETWORKS: list[Network] = [network for family in FAMILIES for network in family.NETWORKS]

DYNAMO, LEGACY = (18, 20), (17,)
CHANGED = {
    # RMSNormalization and Attention exist from opset 23 on, GroupNormalization in its final form from 21 on.
    "ViT, fused attention": 23, "ViT, RMSNorm": 23, "torch TransformerEncoder": 23,
    "UNet, bilinear Resize, GroupNorm": 21,
}  # fmt: skip
"""Where dynamo's graph becomes another one, and at which opset."""
NEW = {
    "ViT": (23,), "ViT, fused attention": (24,), "ViT, RMSNorm": (24,), "UNet, bilinear Resize, GroupNorm": (23,),
    "ResNet-18": (23,), "LSTM": (23,), "BERT-like": (24,),
}  # fmt: skip
OLD = {
    "MLP": (9, 11, 13, 20), "LeNet": (9, 13), "VGG-11": (9,), "SqueezeNet 1.1": (11,), "ResNet-18": (9, 11, 13, 20),
    "ResNet-50": (9,), "DenseNet-121": (9,), "Inception v3": (9, 20), "GoogLeNet, ceil mode": (11,),
    "MobileNet v2": (9, 13), "MobileNet v3 small": (11, 13), "EfficientNet-B0": (11,), "ShuffleNet v2": (9,),
    "ViT": (11, 13, 20), "Swin": (13,), "UNet, ConvTranspose, BatchNorm": (9,), "ConvNeXt-T": (20,),
    "UNet, bilinear Resize, GroupNorm": (11, 13, 20), "UNet, nearest Resize, InstanceNorm": (11, 13),
    "BERT-like": (11, 13), "LSTM": (9, 13, 20), "GRU": (9, 13), "text CNN": (11,),
}  # fmt: skip
WITHOUT_LEGACY = {"ViT, RMSNorm"}
"""Networks with an operator that the legacy exporter does not know."""


def entries(short: bool = False) -> list[Entry]:
    """All entries, those of one network beside each other.

    Args:
        short: networks with fewer blocks, and the newest exporter at its default opset only once: what tests have
            time for.
    """
    result = []
    for network in NETWORKS:
        chosen = network.shortened() if short else network
        dynamo = set(DYNAMO[-1:] if short else (*DYNAMO, *NEW.get(network.name, ())))
        dynamo |= {CHANGED[network.name]} if network.name in CHANGED else set()
        result += [entry(chosen, "torch dynamo", opset) for opset in sorted(dynamo)]
        if network.name not in WITHOUT_LEGACY:
            result += [entry(chosen, "torch legacy", opset) for opset in sorted({*LEGACY, *OLD.get(network.name, ())})]
    return result
