"""ANIL: Raghu, Raghu, Bengio and Vinyals, "Rapid Learning or Feature Reuse?", arXiv 1909.09157."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lightning_meta.episode import Episode
from lightning_meta.inner import last
from lightning_meta.learner import MetaLearner
from lightning_meta.params import Params


class ANIL(MetaLearner):
    """MAML whose inner loop adapts the last layer alone ("almost no inner loop").

    For the body b and the head h of the initialisation, with the body's features f_b:

        h_0 = h,   h_{i+1} = h_i - a grad_h L_s(h_i, f_b),   outer loss = L_q(h_k, f_b)

    Both b and h receive the gradient. The features of the support set are the same in every inner step and computed
    once, from all its rows together; that makes it fast. Where dropout makes them differ, they are computed in every
    step. The backbone must end with an ``nn.Linear``.
    """

    needs_linear_head = True

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """Query loss after adaptation."""
        adapted, _ = last(self.adapt(params, task))
        return self.query_loss(adapted, task), carry

    def inner_objective(self, params: Params, task: Episode) -> Callable[[Params, Tensor, int], Tensor]:
        """The loss of the head on the features of the support set."""
        body = super().adapted_params(params)
        features = self.head.features(body, task.support_x)

        def loss(head: Params, rows: Tensor, step: int) -> Tensor:
            drawn = self.head.features(body, task.support_x) if self.task_map.may_draw and step else features
            outputs = self.head.outputs(head, drawn[rows])
            return self.loss(outputs, task.support_y[rows], reduction=self.inner.reduction)

        return loss

    def adapted_params(self, params: Params) -> Params:
        """The head."""
        return self.head.of(super().adapted_params(params))

    def unadapted_params(self, params: Params, step: int) -> Params:
        """The body."""
        return self.head.body(super().adapted_params(params))
