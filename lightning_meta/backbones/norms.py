"""Normalisation that ``torch.func.vmap`` differentiates correctly twice, and the search for norms that it does not."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from lightning_meta.errors import MetaLearningError
from lightning_meta.mapping.normalisation import normalise


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy, arXiv 1502.03167) that always uses the statistics of its own batch.

    PyTorch's own norm gives a wrong second derivative under ``torch.func.vmap``, with no error (torch 2.11 to 2.15).
    Running statistics do not exist, since they would leak from task to task.

    Args:
        features: channels, the size of dimension 1.
        eps: added to the variance.
        affine: whether to scale and shift.
    """

    def __init__(self, features: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(features)) if affine else None
        self.bias = nn.Parameter(torch.empty(features)) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale and shift by nothing, as at the start."""
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

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


class FrozenBatchNorm(BatchNorm):
    """Batch normalisation by running statistics that never change, as in a pretrained network whose features are kept.

    Its ``state_dict`` is that of PyTorch's batch norms, without ``num_batches_tracked``. Scale and shift learn unless
    they are frozen, too.

    Args:
        features: channels, the size of dimension 1.
        eps: added to the variance.
        affine: whether to scale and shift.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(features, eps, affine)
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape (batch, features, ...)."""
        scale = (self.running_var + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        shift = -self.running_mean * scale
        shift = shift if self.bias is None else shift + self.bias
        shape = [-1, *[1] * (x.dim() - 2)]
        return x * scale.view(shape) + shift.view(shape)


class InstanceNorm(BatchNorm):
    """Instance normalisation (Ulyanov et al., arXiv 1607.08022): statistics of every example by itself."""

    def statistics_over(self, x: Tensor) -> list[int]:
        """The dimensions that share one mean and one variance: all but batch and channels."""
        return list(range(2, x.dim()))


class LayerNorm(nn.Module):
    """Layer normalisation (Ba, Kiros and Hinton, arXiv 1607.06450).

    PyTorch's own with ``elementwise_affine`` gives a wrong second derivative under ``torch.func.vmap``, with no error.

    Args:
        shape: sizes of the last dimensions, which share one mean and one variance.
        eps: added to the variance.
        bias: whether to shift as well as to scale.
    """

    def __init__(self, shape: Sequence[int], eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(tuple(shape)))
        self.bias = nn.Parameter(torch.empty(tuple(shape))) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale and shift by nothing, as at the start."""
        nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape (..., *shape)."""
        over = list(range(x.dim() - self.weight.dim(), x.dim()))
        scaled = normalise(x, over, self.eps) * self.weight
        return scaled if self.bias is None else scaled + self.bias


def unmappable_norms(module: nn.Module) -> dict[str, nn.Module]:
    """PyTorch's norms inside ``module``, by name, that are silently wrong in second order under ``vmap``."""
    return {
        name: part
        for name, part in module.named_modules(remove_duplicate=False)
        if isinstance(part, _NormBase) or (isinstance(part, nn.LayerNorm) and part.elementwise_affine)
    }


def replace_norms(module: nn.Module, keep_statistics: bool = False) -> list[str]:
    """Put a norm of this module in the place of PyTorch's batch, instance and layer norms, in place, with its weights.

    Args:
        module: any that is not a norm itself.
        keep_statistics: whether batch norms with running statistics become `FrozenBatchNorm` with these, which are
            otherwise dropped.

    Returns:
        The names of the norms that were replaced.

    Raises:
        MetaLearningError: a norm computes something of its own as well (an activation, other dimensions).
    """
    norms = unmappable_norms(module)
    for name, norm in norms.items():
        if not type(norm).forward.__module__.startswith("torch."):
            raise MetaLearningError(
                f"model.backbone holds {type(norm).__name__} at {name}, which does more than the norm of PyTorch that "
                "it is derived from, so that model.replace_norms cannot put one in its place: replace it by hand, with "
                "one of lightning_meta.backbones or nn.GroupNorm"
            )
    replaced = {
        norm: _replacement(norm, keep_statistics) for norm in set(norms.values())
    }  # one that has two names stays one
    for name, norm in norms.items():
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, replaced[norm])
    return list(norms)


def _replacement(norm: nn.Module, keep_statistics: bool) -> nn.Module:
    if isinstance(norm, nn.LayerNorm):
        ours: nn.Module = LayerNorm(norm.normalized_shape, norm.eps, norm.bias is not None)
    else:
        assert isinstance(norm, _NormBase)
        ours = (BatchNorm if isinstance(norm, _BatchNorm) else InstanceNorm)(norm.num_features, norm.eps, norm.affine)
        if keep_statistics and isinstance(norm, _BatchNorm) and norm.running_mean is not None:
            ours = FrozenBatchNorm(norm.num_features, norm.eps, norm.affine)
    for name, _ in (*ours.named_parameters(), *ours.named_buffers()):
        setattr(ours, name, getattr(norm, name))  # the same tensors: frozen ones stay frozen, shared ones shared
    return ours
