"""Normalisation that ``torch.func.vmap`` differentiates correctly twice, and the search for norms that it does not."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from lightning_meta.backbones.normalise import normalise


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy, arXiv 1502.03167) that always uses the statistics of its own batch.

    PyTorch's own norm gives a wrong second derivative under ``torch.func.vmap``, with no error (torch 2.11 to 2.14).
    Running statistics do not exist, since they would leak from task to task. Half precision comes out as float32.

    Args:
        features: channels, the size of dimension 1.
        eps: added to the variance.
        affine: whether to scale and shift.
    """

    def __init__(self, features: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def statistics_over(self, x: Tensor) -> list[int]:
        """The dimensions that share one mean and one variance: all but the channels."""
        return [0, *range(2, x.dim())]

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape (batch, features, ...)."""
        normalised = normalise(x, self.statistics_over(x), self.eps)
        if self.weight is None or self.bias is None:
            return normalised
        shape = [-1, *[1] * (x.dim() - 2)]
        return normalised * self.weight.view(shape) + self.bias.view(shape)


class InstanceNorm(BatchNorm):
    """Instance normalisation (Ulyanov et al., arXiv 1607.08022): statistics of every example by itself."""

    def statistics_over(self, x: Tensor) -> list[int]:
        """The dimensions that share one mean and one variance: all but batch and channels."""
        return list(range(2, x.dim()))


def unmappable_norms(module: nn.Module) -> dict[str, nn.Module]:
    """PyTorch's batch and instance norms inside ``module``, by name: silently wrong in second order under ``vmap``."""
    return {name: part for name, part in module.named_modules() if isinstance(part, _NormBase)}


def replace_norms(module: nn.Module) -> list[str]:
    """Put a `BatchNorm` or `InstanceNorm` in the place of PyTorch's, in place, with their weights.

    Running statistics are dropped. The module itself must not be a norm.

    Returns:
        The names of the norms that were replaced.
    """
    norms = unmappable_norms(module)
    for name, norm in norms.items():
        assert isinstance(norm, _NormBase)
        kind = BatchNorm if isinstance(norm, _BatchNorm) else InstanceNorm
        replacement = kind(norm.num_features, norm.eps, norm.affine)
        replacement.load_state_dict(
            {key: value for key, value in norm.state_dict().items() if key in ("weight", "bias")}
        )
        if isinstance(norm.weight, nn.Parameter):
            replacement.to(norm.weight)
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, replacement)
    return list(norms)
