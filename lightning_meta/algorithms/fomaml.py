"""First-order MAML: Finn, Abbeel and Levine, arXiv 1703.03400, section 5.2; Nichol et al., arXiv 1803.02999."""

from typing import Any

from torch import Tensor

from lightning_meta.episode import Episode
from lightning_meta.inner import last
from lightning_meta.learner import MetaLearner
from lightning_meta.params import Params


class FOMAML(MetaLearner):
    """MAML with the inner gradients held constant: the meta-gradient is the query gradient at the adapted weights.

    With plain descent inside, the derivative of the adaptation is the identity. Memory hardly grows with the number of
    inner steps, and what an inner rule learns (a rate) is still learned, through its own arithmetic.
    """

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """Query loss after adaptation by constant gradients."""
        adapted, _ = last(self.adapt(params, task, second_order=False))
        return self.query_loss(adapted, task), carry
