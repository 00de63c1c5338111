"""BOIL: Oh, Yoo, Kim and Yun, "BOIL: Towards Representation Change for Few-shot Learning", arXiv 2008.08882."""

from typing import Any

from torch import Tensor

from lightning_meta.episode import Episode
from lightning_meta.inner import last
from lightning_meta.learner import MetaLearner
from lightning_meta.params import Params


class BOIL(MetaLearner):
    """MAML whose inner loop adapts everything but the last layer ("body only update in inner loop").

    For the body b and the head h of the initialisation:

        b_0 = b,   b_{i+1} = b_i - a grad_b L_s(h, b_i),   outer loss = L_q(h, b_k)

    Both b and h receive the gradient. The backbone must end with an ``nn.Linear``.
    """

    needs_linear_head = True

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """Query loss after adaptation."""
        adapted, _ = last(self.adapt(params, task))
        return self.query_loss(adapted, task), carry

    def adapted_params(self, params: Params) -> Params:
        """The body."""
        return self.head.body(super().adapted_params(params))

    def unadapted_params(self, params: Params, step: int) -> Params:
        """The head."""
        return self.head.of(super().adapted_params(params))
