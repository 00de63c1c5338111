"""The vision transformer: Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929; torchvision's."""

import torchvision
from torch import nn

from lightning_meta.backbones.norms import replace_norms
from lightning_meta.errors import MetaLearningError


class VisionTransformer(torchvision.models.VisionTransformer):
    """torchvision's vision transformer, small, for any number of channels, with norms that can be vectorised.

    Its head starts at zero, as torchvision's does, and nothing in it is random.

    Args:
        outputs: width of the output, the number of ways.
        channels: channels of the images.
        image_size: height and width of the images.
        patch_size: height and width of the patches, each of which becomes a token.
        layers: blocks of attention and perceptron.
        heads: attention heads.
        width: entries of a token; the perceptrons have four times as many.

    Raises:
        MetaLearningError: images cannot be cut into such patches, or tokens into that many heads.
    """

    def __init__(
        self,
        outputs: int,
        channels: int = 1,
        image_size: int = 28,
        patch_size: int = 7,
        layers: int = 4,
        heads: int = 4,
        width: int = 64,
    ) -> None:
        for whole, size, part, parts in (
            ("image_size", image_size, "patch_size", patch_size),
            ("width", width, "heads", heads),
        ):
            if size % parts:
                raise MetaLearningError(f"model.backbone.{whole} is {size}, expected a multiple of {part}, {parts}")
        super().__init__(image_size, patch_size, layers, heads, width, 4 * width, num_classes=outputs)
        self.conv_proj = nn.Conv2d(channels, width, patch_size, patch_size)  # torchvision's takes three channels
        nn.init.trunc_normal_(self.conv_proj.weight, std=(channels * patch_size**2) ** -0.5)
        nn.init.zeros_(self.conv_proj.get_parameter("bias"))
        replace_norms(self)
