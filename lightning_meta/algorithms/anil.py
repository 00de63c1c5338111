"""ANIL: Raghu, Raghu, Bengio and Vinyals, "Rapid Learning or Feature Reuse?", arXiv 1909.09157."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from lightning_meta.algorithms.maml import MAML
from lightning_meta.episode import Episode
from lightning_meta.params import Params


class ANIL(MAML):
    """MAML whose inner loop adapts the last layer alone ("almost no inner loop").

    For the body b and the head h of the initialisation, with the body's features f_b:

        h_0 = h,   h_{i+1} = h_i - a grad_h L_s(h_i, f_b),   outer loss = L_q(h_k, f_b)

    Both b and h receive the gradient. The features of the support set are the same in every inner step and computed
    once, from all its rows together; that makes it fast. The backbone must end with an ``nn.Linear``.
    """

    cuts_head = True

    def adapt(
        self, params: Params, task: Episode, state: Any = None, second_order: bool = True
    ) -> Iterator[tuple[Params, Any]]:
        """The inner loop on the features of the support set; yields complete weights."""
        body, head = self.held(params, 0), self.fast(params)
        features = self.run_body(body | head, task.support_x)

        def loss(head: Params, rows: Tensor, step: int) -> Tensor:
            outputs = self.run_head(head, features[rows])
            return self.loss(outputs, task.support_y[rows], reduction=self.inner.reduction)

        steps = self.descend(loss, head, params, task, state, second_order)
        return ((body | head, state) for head, state in steps)

    def fast(self, params: Params) -> Params:
        """The head."""
        return self.head.of(super().fast(params))

    def held(self, params: Params, step: int) -> Params:
        """The body."""
        return self.head.body(super().fast(params))
