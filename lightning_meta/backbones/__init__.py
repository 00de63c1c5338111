"""Networks that are adapted: plain modules. Any other ``nn.Module`` serves as well, by its class path."""

from lightning_meta.backbones.conv4 import Conv4
from lightning_meta.backbones.mlp import MLP
from lightning_meta.backbones.norms import (
    BatchNorm,
    FrozenBatchNorm,
    InstanceNorm,
    LayerNorm,
    replace_norms,
    unmappable_norms,
)
from lightning_meta.backbones.policy import GaussianPolicy
from lightning_meta.backbones.pretrained import Pretrained
from lightning_meta.backbones.recurrent import GRU, LSTM
from lightning_meta.backbones.resnet12 import ResNet12
from lightning_meta.backbones.vision_transformer import VisionTransformer
from lightning_meta.backbones.wide_resnet import WideResNet

__all__ = [
    "GRU",
    "LSTM",
    "MLP",
    "BatchNorm",
    "Conv4",
    "FrozenBatchNorm",
    "GaussianPolicy",
    "InstanceNorm",
    "LayerNorm",
    "Pretrained",
    "ResNet12",
    "VisionTransformer",
    "WideResNet",
    "replace_norms",
    "unmappable_norms",
]
