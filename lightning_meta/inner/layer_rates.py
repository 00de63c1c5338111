"""Rates by layer and step: Antoniou, Edwards and Storkey, "How to train your MAML", arXiv 1810.09502, section 4."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_meta.inner.optimizers import InnerOptimizer
from lightning_meta.params import Params, map_params


@dataclass(frozen=True)
class LayerRates(InnerOptimizer):
    """Gradient descent with a meta-learned rate for every tensor of weights and every inner step.

    Attributes:
        lr: what all rates start from.
        steps: inner steps that have rates; no task may take more.
    """

    lr: float = 0.01
    steps: int = 1

    def learned(self, fast: Params) -> Params:
        """For each tensor its rates, shape (steps,)."""
        return map_params(lambda weight: weight.new_full((self.steps,), self.lr), fast)

    def init(self, fast: Params) -> dict[str, Any]:
        return {}

    def update(
        self, grads: Params, state: dict[str, Any], fast: Params, meta: Params, step: int
    ) -> tuple[Params, dict[str, Any]]:
        def descend(weight: Tensor, grad: Tensor, rates: Tensor) -> Tensor:
            return weight - rates[step] * grad

        return map_params(descend, fast, grads, meta), state
