"""MAML for reinforcement learning: Finn, Abbeel and Levine, arXiv 1703.03400, section 4.2 and algorithm 3."""

from typing import Any

from torch import Tensor

from lightning_meta.algorithms.policy_learner import PolicyLearner
from lightning_meta.episode import Episode
from lightning_meta.inner import last
from lightning_meta.params import Params


class PolicyGradientMAML(PolicyLearner):
    """Learn a policy that a few policy-gradient steps adapt to a task, by REINFORCE inside and outside.

    The outer loss is that of the adapted policy's trajectories, differentiated through the inner steps. Without inner
    steps in training it is joint training on all tasks, the source's pre-trained policy.
    """

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """REINFORCE on the trajectories of the adapted policy."""
        adapted, _ = last(self.adapt(params, task))
        return self.policy_loss(adapted, self.sample(adapted, task.query_x, task.query_y)), carry
