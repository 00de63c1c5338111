"""Wide residual networks: Zagoruyko and Komodakis, "Wide Residual Networks", arXiv 1605.07146."""

from torch import Tensor, nn

from lightning_meta.backbones.norms import BatchNorm
from lightning_meta.errors import MetaLearningError

_FILTERS = 16  # of the first convolution
_GROUPS = 3


class WideResNet(nn.Sequential):
    """A convolution, three groups of residual blocks (16, 32 and 64 filters, times ``width``), a spatial mean, a head.

    Blocks are pre-activated: batch norm, ReLU and 3x3 convolution, twice. The second and third group halve the image.
    WRN-16-4 has 2.7 million parameters, WRN-28-10 of the papers 36.5 million. Without dropout.

    Args:
        outputs: width of the output, the number of ways.
        channels: channels of the images.
        depth: layers, 6 n + 4 for n blocks in a group.
        width: multiplies the filters.

    Raises:
        MetaLearningError: no network has this depth.
    """

    def __init__(self, outputs: int, channels: int = 3, depth: int = 16, width: int = 4) -> None:
        blocks, rest = divmod(depth - 4, 2 * _GROUPS)
        if rest or blocks < 1:
            raise MetaLearningError(f"model.backbone.depth is {depth}, expected 6 n + 4, such as 10, 16, 22 or 28")
        layers: list[nn.Module] = [nn.Conv2d(channels, _FILTERS, 3, padding=1, bias=False)]
        before = _FILTERS
        for group in range(_GROUPS):
            after = _FILTERS * width * 2**group
            for block in range(blocks):
                layers.append(_Block(before, after, stride=2 if group and not block else 1))
                before = after
        end = [BatchNorm(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, outputs)]
        super().__init__(*layers, *end)


class _Block(nn.Module):
    """Where the shape changes, the shortcut is a convolution of the activated input; otherwise the input itself."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(BatchNorm(before), nn.ReLU())
        self.convolutions = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False), BatchNorm(after), nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation(x)
        return self.convolutions(activated) + (x if self.shortcut is None else self.shortcut(activated))
