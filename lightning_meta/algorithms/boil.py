"""BOIL: Oh, Yoo, Kim and Yun, "BOIL: Towards Representation Change for Few-shot Learning", arXiv 2008.08882."""

from lightning_meta.algorithms.maml import MAML
from lightning_meta.params import Params


class BOIL(MAML):
    """MAML whose inner loop adapts everything but the last layer ("body only update in inner loop").

    For the body b and the head h of the initialisation:

        b_0 = b,   b_{i+1} = b_i - a grad_b L_s(h, b_i),   outer loss = L_q(h, b_k)

    Both b and h receive the gradient. The backbone must end with an ``nn.Linear``.
    """

    cuts_head = True

    def fast(self, params: Params) -> Params:
        """The body."""
        return self.head.body(super().fast(params))

    def held(self, params: Params, step: int) -> Params:
        """The head."""
        return self.head.of(super().fast(params))
