"""iMAML: Rajeswaran, Finn, Kakade and Levine, "Meta-Learning with Implicit Gradients", arXiv 1909.04630."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop, last
from lightning_meta.learner.meta_learner import MetaLearner
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
        loss: as in `MetaLearner`.
        outer_reduction: as in `MetaLearner`.
        optimizer: as in `MetaLearner`.
        lr_scheduler: as in `MetaLearner`.
        task_chunk: as in `MetaLearner`.
        compile: as in `MetaLearner`.
        replace_norms: as in `MetaLearner`.

    Raises:
        MetaLearningError: lambda is not positive, the damping is negative, or the solver has no iteration.
    """

    learns_rule = False

    def __init__(
        self,
        backbone: nn.Module,
        inner: InnerLoop = InnerLoop(steps=16, evaluation_steps=16),
        regularisation: float = 2.0,
        conjugate_gradient_steps: int = 5,
        damping: float = 0.0,
        loss: Callable[..., Tensor] = functional.cross_entropy,
        outer_reduction: Literal["mean", "sum"] = "mean",
        optimizer: OptimizerCallable = lambda parameters: Adam(parameters, lr=1e-3),
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        task_chunk: int | Literal["auto"] = "auto",
        compile: bool = True,  # noqa: A002
        replace_norms: bool = False,
    ) -> None:
        super().__init__(
            backbone, inner, loss, outer_reduction, optimizer, lr_scheduler, task_chunk, compile, replace_norms
        )
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
        tie = self.regularisation + self.damping
        every_row = torch.arange(len(task.support_x), device=task.support_x.device)

        def query_loss(fast: Params) -> Tensor:
            return self.query_loss(fast, task) * scale

        def support_loss(fast: Params) -> Tensor:
            return self.inner_loss(fast, task, every_row) * scale

        query_gradient, loss = torch.func.grad_and_value(query_loss)(adapted)
        _, hessian, *_ = torch.func.vjp(torch.func.grad(support_loss), adapted)

        def product(vector: Tensor) -> Tensor:
            length = vector.norm() + torch.finfo(vector.dtype).tiny  # of length 1, it stays in the range of float16
            (curvature,) = hessian(unflatten(vector / length, adapted))
            return vector + flatten(curvature) * (length / (scale * tie))

        right = flatten(query_gradient) / scale
        gradient = conjugate_gradient(product, right, self.conjugate_gradient_steps).detach()
        phi = flatten(self.fast(params))
        return loss.detach() / scale + (gradient * (phi - phi.detach())).sum(), carry

    def adapt(
        self, params: Params, task: Episode, state: Any = None, second_order: bool = True
    ) -> Iterator[tuple[Params, Any]]:
        """The inner loop on the regularised problem."""
        phi = self.fast(params)

        def loss(fast: Params, rows: Tensor, step: int) -> Tensor:
            return self.inner_loss(fast, task, rows) + self.regularisation * half_squared_distance(fast, phi)

        return self.descend(loss, phi, params, task, state, second_order)
