"""Loss scaling for float16, whose gradients would underflow (Micikevicius et al., arXiv 1710.03740)."""

import torch

from lightning_meta.params import Params, map_params


def loss_scale(device: torch.device) -> float:
    """What a loss is multiplied by before it is differentiated: 1 unless autocast computes in float16.

    Lightning's scaler comes too late: the meta-gradient, with the inner ones inside it, is computed before.
    """
    half = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.float16
    return 1024.0 if half else 1.0


def unscaled(grads: Params, scale: float) -> Params:
    """The gradients of the loss itself, in the parameters' own precision."""
    return grads if scale == 1 else map_params(lambda grad: grad / scale, grads)
