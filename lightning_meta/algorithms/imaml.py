"""iMAML: Rajeswaran, Finn, Kakade and Levine, "Meta-Learning with Implicit Gradients", arXiv 1909.04630."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop, last
from lightning_meta.learner import MetaLearner
from lightning_meta.mapping.loss_scale import loss_scale
from lightning_meta.params import Params, detach, flatten, half_squared_distance, unflatten
from lightning_meta.solvers import conjugate_gradient


class IMAML(MetaLearner):
    """MAML whose gradient is that of the inner problem's solution, and not of the way to it.

    The inner loop solves a problem that is tied to the initialisation:

        w* = argmin_w L_s(w) + lambda / 2 ||w - phi||^2

    Where w* is reached, the implicit function theorem gives the meta-gradient from w* alone,

        (I + 1/lambda H_s(w*))^-1 grad L_q(w*),   H_s the Hessian of L_s,

    found by conjugate gradient with products of H_s and vectors. Memory does not grow with the inner steps. Away from
    w*, H_s may have eigenvalues below -lambda, and the system is then no longer positive definite: damping d puts
    lambda + d in the place of lambda in the system alone.

    Args:
        backbone: the network that is adapted.
        inner: the inner loop; enough steps to come close to w*.
        regularisation: lambda, which ties the weights to the initialisation.
        conjugate_gradient_steps: iterations of the solver.
        damping: d. The authors' code has one, which the paper leaves out: its 2 I + H_s / (lambda + 10) is, at lambda 2
            and up to a factor that Adam cancels, d = 22.

    Raises:
        MetaLearningError: lambda is not positive, the damping is negative, or the solver has no iteration.
    """

    trains_inner_rule = False
    needs_fixed_loss = "differentiates the minimum of one inner loss, which random numbers change at every step"

    def __init__(
        self,
        backbone: nn.Module,
        inner: InnerLoop = InnerLoop(steps=16, evaluation_steps=16),
        *,
        regularisation: float = 2.0,
        conjugate_gradient_steps: int = 5,
        damping: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(backbone, inner, **settings)
        if not regularisation > 0:
            raise MetaLearningError(f"model.regularisation is {regularisation}, expected a number above 0")
        if not damping >= 0:
            raise MetaLearningError(f"model.damping is {damping}, expected a number that is at least 0")
        if conjugate_gradient_steps < 1:
            raise MetaLearningError(
                f"model.conjugate_gradient_steps is {conjugate_gradient_steps}, expected at least 1: with none, this "
                "would be FOMAML"
            )
        self.regularisation = regularisation
        self.conjugate_gradient_steps = conjugate_gradient_steps
        self.damping = damping

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """The query loss at the adapted weights, with the implicit gradient."""
        adapted = detach(last(self.adapt(detach(params), task))[0])
        scale = loss_scale(task.support_x.device)
        strength = self.regularisation + self.damping
        every_row = torch.arange(len(task.support_x), device=task.support_x.device)

        def query_loss(fast: Params) -> Tensor:
            return self.query_loss(fast, task) * scale

        def support_loss(fast: Params) -> Tensor:
            return self.inner_loss(fast, task, every_row) * scale

        query_gradient, loss = torch.func.grad_and_value(query_loss)(adapted)
        _, hessian, *_ = torch.func.vjp(torch.func.grad(support_loss), adapted)

        def product(vector: Tensor) -> Tensor:
            norm = vector.norm() + torch.finfo(vector.dtype).tiny  # of length 1, it stays in the range of float16
            (curvature,) = hessian(unflatten(vector / norm, adapted))
            return vector + flatten(curvature) * (norm / (scale * strength))

        right = flatten(query_gradient) / scale
        gradient = conjugate_gradient(product, right, self.conjugate_gradient_steps).detach()
        phi = flatten(self.adapted_params(params))
        return loss.detach() / scale + (gradient * (phi - phi.detach())).sum(), carry

    def inner_objective(self, params: Params, task: Episode) -> Callable[[Params, Tensor, int], Tensor]:
        """The regularised loss."""
        phi = self.adapted_params(params)

        def loss(fast: Params, rows: Tensor, step: int) -> Tensor:
            return self.inner_loss(fast, task, rows) + self.regularisation * half_squared_distance(fast, phi)

        return loss
