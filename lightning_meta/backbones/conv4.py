"""The four-layer convolutional network of the few-shot papers.

Vinyals et al., "Matching Networks for One Shot Learning", arXiv 1606.04080, in the forms that Finn et al.
(arXiv 1703.03400) and Nichol et al. (arXiv 1803.02999) gave it.
"""

from typing import Literal

from torch import Tensor, nn

from lightning_meta.backbones.norms import BatchNorm

LAYERS = 4


class Conv4(nn.Sequential):
    """Four blocks of 3x3 convolution, batch norm and ReLU, each halving the image, and a linear head.

    Omniglot, Finn: 64 filters, ``stride``, head on the ``mean``. Omniglot, Nichol: the same, head on ``flatten`` (256).
    mini-ImageNet, Finn: 32 filters, ``max_pool``, ``flatten`` (800). Nichol: the same with ``ceil_mode`` (1,152).
    Weights start as PyTorch's layers do: larger ones (Glorot's) make an inner step weigh less under batch norm.

    Args:
        outputs: width of the output, the number of ways.
        channels: channels of the images.
        filters: channels of every convolution.
        image_size: height and width of the images; used by the ``flatten`` head alone.
        downsample: ``stride`` halves in the convolution, ``max_pool`` after it.
        ceil_mode: whether pooling keeps the odd border, as TensorFlow's SAME does.
        head: linear layer on the spatial ``mean`` or on the ``flatten``-ed features.
    """

    def __init__(
        self,
        outputs: int,
        channels: int = 1,
        filters: int = 64,
        image_size: int = 28,
        downsample: Literal["stride", "max_pool"] = "stride",
        ceil_mode: bool = False,
        head: Literal["mean", "flatten"] = "mean",
    ) -> None:
        layers: list[nn.Module] = []
        size = image_size
        for layer in range(LAYERS):
            stride = 2 if downsample == "stride" else 1
            layers += [nn.Conv2d(filters if layer else channels, filters, 3, stride, padding=1)]
            layers += [BatchNorm(filters), nn.ReLU()]
            if downsample == "max_pool":
                layers.append(nn.MaxPool2d(2, ceil_mode=ceil_mode))
            size = (size + 1) // 2 if downsample == "stride" or ceil_mode else size // 2
        features = filters * (size**2 if head == "flatten" else 1)
        pool: list[nn.Module] = [_SpatialMean()] if head == "mean" else [nn.Flatten()]
        super().__init__(*layers, *pool, nn.Linear(features, outputs))


class _SpatialMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1))
