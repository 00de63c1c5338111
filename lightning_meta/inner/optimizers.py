"""Inner optimizers: pure pairs of ``init`` and ``update`` on the weights that are being adapted."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_meta.params import Params, map_params


class InnerOptimizer(ABC):
    """One rule for the inner loop. It holds settings alone; whatever changes is passed in and handed back.

    Write a subclass as a frozen dataclass: its fields are then kept in checkpoints by themselves.
    """

    def learned(self, fast: Params) -> Params:
        """Initial values of the rule's own meta-learned parameters (rates, an LSTM); none unless a rule has some."""
        return {}

    @abstractmethod
    def init(self, fast: Params) -> Any:
        """The state before the first step, a pytree of tensors."""

    @abstractmethod
    def update(self, grads: Params, state: Any, fast: Params, meta: Params, step: int) -> tuple[Params, Any]:
        """One step: new weights and new state.

        Args:
            grads: gradient of the inner loss at ``fast``.
            state: what ``init`` or the last ``update`` gave.
            fast: the weights being adapted.
            meta: the current values of what ``learned`` named.
            step: number of this inner step, from 0.
        """


@dataclass(frozen=True)
class SGD(InnerOptimizer):
    """Plain gradient descent, ``fast - lr * grads``.

    Attributes:
        lr: inner step size.
    """

    lr: float = 0.01

    def init(self, fast: Params) -> dict[str, Any]:
        return {}

    def update(
        self, grads: Params, state: dict[str, Any], fast: Params, meta: Params, step: int
    ) -> tuple[Params, dict[str, Any]]:
        return map_params(lambda weight, grad: weight - self.lr * grad, fast, grads), state


class AdamState(NamedTuple):
    """What `Adam` remembers from step to step."""

    steps: Tensor  # so far; a float, so that a mean over tasks and ranks leaves it as it is
    mu: Params  # decayed mean of the gradients; empty where beta1 is 0
    nu: Params  # decayed mean of the squared gradients


@dataclass(frozen=True)
class Adam(InnerOptimizer):
    """Adam (Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv 1412.6980), bias-corrected.

    Attributes:
        lr: inner step size.
        beta1: decay of the mean gradient; Reptile's runs use 0.
        beta2: decay of the mean squared gradient.
        epsilon: added to the root of the mean squared gradient.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def init(self, fast: Params) -> AdamState:
        """Moments of zero."""
        device = next(iter(fast.values())).device
        mu = map_params(torch.zeros_like, fast) if self.beta1 else {}
        return AdamState(torch.zeros((), device=device), mu, map_params(torch.zeros_like, fast))

    def update(
        self, grads: Params, state: AdamState, fast: Params, meta: Params, step: int
    ) -> tuple[Params, AdamState]:
        steps, mu = state.steps + 1, grads
        if self.beta1:
            mu = map_params(lambda m, g: self.beta1 * m + (1 - self.beta1) * g, state.mu, grads)
        nu = map_params(lambda v, g: self.beta2 * v + (1 - self.beta2) * g * g, state.nu, grads)
        rate = self.lr / (1 - self.beta1**steps)
        correction = (1 - self.beta2**steps).rsqrt()

        def step_weight(weight: Tensor, m: Tensor, v: Tensor) -> Tensor:
            # A gradient of exactly zero (a bias before a batch norm) would give the root an infinite derivative.
            root = (v + torch.finfo(v.dtype).tiny).sqrt() * correction
            return weight - rate * m / (root + self.epsilon)

        return map_params(step_weight, fast, mu, nu), AdamState(steps, mu if self.beta1 else {}, nu)
