"""The multilayer perceptrons of the few-shot papers."""

from collections.abc import Sequence

from torch import nn

from lightning_meta.backbones.norms import BatchNorm


class MLP(nn.Sequential):
    """Linear layers with an activation between them; the input is flattened.

    Sinusoid, Finn et al. (arXiv 1703.03400): 1 -> 40 -> 40 -> 1, ReLU. Nichol et al. (arXiv 1803.02999): 64, 64, tanh.
    Omniglot without convolution, Finn et al.: 784 -> 256 -> 128 -> 64 -> 64, ``batch_norm``, ReLU.

    Args:
        outputs: width of the output.
        inputs: entries of one flattened input.
        hidden: widths of the hidden layers.
        activation: class of the activation.
        batch_norm: whether a `BatchNorm` stands before every activation.
    """

    def __init__(
        self,
        outputs: int,
        inputs: int = 1,
        hidden: Sequence[int] = (40, 40),
        activation: type[nn.Module] = nn.ReLU,
        batch_norm: bool = False,
    ) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        width = inputs
        for next_width in hidden:
            layers += [nn.Linear(width, next_width), *([BatchNorm(next_width)] if batch_norm else []), activation()]
            width = next_width
        super().__init__(*layers, nn.Linear(width, outputs))
