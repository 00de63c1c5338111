"""Meta-SGD: Li, Zhou, Chen and Li, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning", arXiv 1707.09835."""

from dataclasses import dataclass
from typing import Any

import torch

from lightning_meta.inner.optimizers import InnerOptimizer
from lightning_meta.params import Params, map_params


@dataclass(frozen=True)
class MetaSGD(InnerOptimizer):
    """Gradient descent with a meta-learned rate for every single weight, ``fast - rates * grads``.

    The rates are learned beside the initialisation, by `MAML`, `FOMAML` and their like; they may turn negative.

    Attributes:
        lr: what all rates start from.
    """

    lr: float = 0.01

    def learned(self, fast: Params) -> Params:
        """One rate for each entry of each weight."""
        return map_params(lambda weight: torch.full_like(weight, self.lr), fast)

    def init(self, fast: Params) -> dict[str, Any]:
        return {}

    def update(
        self, grads: Params, state: dict[str, Any], fast: Params, meta: Params, step: int
    ) -> tuple[Params, dict[str, Any]]:
        return map_params(lambda weight, grad, rate: weight - rate * grad, fast, grads, meta), state
