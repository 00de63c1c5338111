"""MAML: Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", arXiv 1703.03400."""

from typing import Any

from torch import Tensor

from lightning_meta.episode import Episode
from lightning_meta.inner import last
from lightning_meta.learner import MetaLearner
from lightning_meta.params import Params


class MAML(MetaLearner):
    """Learn an initialisation from which a few gradient steps solve a task, by differentiating through those steps.

    For one task with support loss L_s and query loss L_q, k inner steps and inner rate a:

        w_0 = phi,   w_{i+1} = w_i - a grad L_s(w_i),   outer loss = L_q(w_k)

    The gradient with respect to phi holds the second derivatives of L_s. With ``outer_reduction="mean"`` it is the
    arithmetic variant (Soulier 2020), whose step size does not grow with the number of tasks.
    """

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """Query loss after adaptation."""
        adapted, _ = last(self.adapt(params, task))
        return self.query_loss(adapted, task), carry
