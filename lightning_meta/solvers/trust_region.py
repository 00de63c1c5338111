"""Trust region policy optimisation (Schulman et al., arXiv 1502.05477), as far as it is arithmetic on vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_meta.solvers.conjugate_gradient import conjugate_gradient


class Outcome(NamedTuple):
    """What a step leads to, scalars."""

    surrogate: Tensor
    kl: Tensor


@dataclass(frozen=True)
class TrustRegion:
    """How a step is found that lowers a surrogate loss within a bound of the KL divergence.

    Attributes:
        max_kl: the bound.
        conjugate_gradient_steps: at most.
        damping: added to the diagonal of the KL's Hessian.
        line_search_steps: lengths that are tried.
        line_search_ratio: from one length to the next.
    """

    max_kl: float = 0.01
    conjugate_gradient_steps: int = 10
    damping: float = 1e-5
    line_search_steps: int = 15
    line_search_ratio: float = 0.8

    def step(
        self,
        gradient: Tensor,
        product: Callable[[Tensor], Tensor],
        evaluate: Callable[[Tensor], Outcome],
        before: Outcome,
    ) -> tuple[Tensor, Outcome]:
        """The step to subtract, zero where none improves the surrogate within the bound, and what it leads to.

        Args:
            gradient: of the surrogate, a vector.
            product: multiplies a vector with the KL's Hessian.
            evaluate: what subtracting a vector leads to.
            before: what subtracting nothing leads to.
        """

        def damped(vector: Tensor) -> Tensor:
            return product(vector) + self.damping * vector

        direction = conjugate_gradient(damped, gradient, self.conjugate_gradient_steps)
        curvature = direction @ damped(direction)
        longest = direction * (2 * self.max_kl / curvature).sqrt()
        for shortened in range(self.line_search_steps):
            step = longest * self.line_search_ratio**shortened
            outcome = evaluate(step)
            if outcome.surrogate < before.surrogate and outcome.kl <= self.max_kl:  # false where one is not a number
                return step, outcome
        return torch.zeros_like(gradient), before
