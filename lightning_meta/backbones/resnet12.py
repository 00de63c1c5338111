"""The twelve-layer residual network of few-shot learning.

Oreshkin, Rodriguez and Lacoste, "TADAM: Task dependent adaptive metric for improved few-shot learning",
arXiv 1805.10123, in the width of Lee, Maji, Ravichandran and Soatto, arXiv 1904.03758 (64, 160, 320, 640 channels).
"""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from lightning_meta.backbones.norms import BatchNorm


class ResNet12(nn.Sequential):
    """Four residual blocks of three 3x3 convolutions, each halving the image, a spatial mean and a linear head.

    Without DropBlock: nothing random may happen inside an inner loop.

    Args:
        outputs: width of the output, the number of ways.
        channels: channels of the images.
        filters: channels of the four blocks.
    """

    def __init__(self, outputs: int, channels: int = 3, filters: Sequence[int] = (64, 160, 320, 640)) -> None:
        widths = [channels, *filters]
        blocks = [_Block(before, after) for before, after in itertools.pairwise(widths)]
        super().__init__(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], outputs))


class _Block(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (before, after, after):
            layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), BatchNorm(after), nn.LeakyReLU(0.1)]
        self.convolutions = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, bias=False), BatchNorm(after))
        self.end = nn.Sequential(nn.LeakyReLU(0.1), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.convolutions(x) + self.shortcut(x))
