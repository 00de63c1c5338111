"""First-order MAML: Finn, Abbeel and Levine, arXiv 1703.03400, section 5.2; Nichol et al., arXiv 1803.02999."""

from typing import Any

from torch import Tensor

from lightning_meta.algorithms.base import MetaLearner
from lightning_meta.episode import Episode
from lightning_meta.inner import last
from lightning_meta.params import Params, detach, straight_through


class FOMAML(MetaLearner):
    """MAML with the inner gradients held constant: the meta-gradient is the query gradient at the adapted weights.

    The inner loop starts from detached weights and the identity's derivative is put back once, so that memory does not
    grow with the number of inner steps.
    """

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """Query loss after adaptation, with the derivative of the identity through the adaptation."""
        adapted, _ = last(self.adapt(detach(params), task))
        return self.query_loss(straight_through(adapted, self.fast(params)), task), carry
