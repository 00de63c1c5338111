"""What methods share that adapt a policy to a task: Finn, Abbeel and Levine, arXiv 1703.03400, section 4.2."""

from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn

from lightning_meta.envs import TensorEnvironment, TensorNavigation2D
from lightning_meta.envs.trajectories import Samples, advantages, policy_gradient_loss, roll_out
from lightning_meta.episode import Episode, EpisodeSource, Predictions
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop
from lightning_meta.learner import MetaLearner
from lightning_meta.learner.checks.reinforcement import check_noise, check_policy, check_reinforcement_settings
from lightning_meta.params import Params, detach


def negative_return(outputs: Tensor, targets: Tensor, reduction: Literal["none", "mean", "sum"] = "mean") -> Tensor:
    """What is scored: minus the return of each trajectory, from ``outputs`` of shape (trajectories, 1)."""
    losses = -outputs[:, 0]
    return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()


class PolicyLearner(MetaLearner):
    """Base of methods that learn a policy which a few policy-gradient steps adapt to a task.

    Every inner step rolls out the policy that it adapts, estimates advantages (`trajectories.advantages`) and descends
    minus the mean of log-probability times advantage. As in the source, trajectories are constants: that the
    meta-parameters also decide which trajectories the inner steps see is left out of the gradient.

    An episode brings all randomness: a row of ``support_x`` and ``query_x`` is the noise of one trajectory, of ``y``
    its task. What is scored as a loss is minus the return, undiscounted; the two query protocols are the same.

    Args:
        backbone: the policy: for observations (rows, observations) it gives means and log standard deviations of the
            actions, (rows, 2 * actions).
        inner: the inner loop; the rows of a step are its trajectories.
        environment: where the policy acts.
        discount: gamma.
        gae_lambda: lambda of the advantage estimates.
        compile: as in `MetaLearner`; a long horizon takes minutes to trace, and hardly gains.

    Raises:
        MetaLearningError: discount or lambda lie outside 0..1, the inner loss is to be a sum, or the environment's
            actions are not vectors.
    """

    needs_fixed_loss = "weighs actions by the policy that has sampled them, of which random numbers make another"

    def __init__(
        self,
        backbone: nn.Module,
        inner: InnerLoop = InnerLoop(SGD(0.1), evaluation_steps=3),
        *,
        environment: TensorEnvironment = TensorNavigation2D(),
        discount: float = 0.99,
        gae_lambda: float = 1.0,
        compile: bool = False,  # noqa: A002
        **settings: Any,
    ) -> None:
        super().__init__(backbone, inner, loss=negative_return, compile=compile, **settings)
        check_reinforcement_settings(environment, inner, discount, gae_lambda)
        self.environment = environment
        self.discount = discount
        self.gae_lambda = gae_lambda

    def inner_loss(self, fast: Params, task: Episode, rows: Tensor) -> Tensor:
        """REINFORCE on trajectories of these weights."""
        return self.policy_loss(fast, self.sample(fast, task.support_x[rows], task.support_y[rows]))

    def sample(self, fast: Params, noise: Tensor, goals: Tensor) -> Samples:
        """Trajectories of the policy at ``fast`` and their advantages, as constants."""
        constant = detach(fast)
        trajectories = roll_out(self.environment, lambda x: self.run_backbone(constant, x), noise, goals)
        return Samples(
            trajectories.observations,
            trajectories.actions,
            advantages(trajectories, self.discount, self.gae_lambda),
            trajectories.mask,
        )

    def policy_loss(self, fast: Params, samples: Samples) -> Tensor:
        """Minus the mean of log-probability times advantage."""
        return policy_gradient_loss(lambda x: self.run_backbone(fast, x), samples)

    def predictions(self, params: Params, task: Episode, carry: Any) -> Predictions:
        """The undiscounted return of every row's trajectory before adaptation and after every step, (..., rows, 1)."""
        noise, goals = torch.cat([task.support_x, task.query_x]), torch.cat([task.support_y, task.query_y])
        steps = []
        for fast, _ in self.adapt(params, task):
            constant = detach(fast)
            trajectories = roll_out(self.environment, lambda x: self.run_backbone(constant, x), noise, goals)  # noqa: B023
            steps.append(trajectories.rewards.sum(1, keepdim=True))
        support, query = torch.stack(steps).split([len(task.support_x), len(task.query_x)], 1)
        return Predictions(support, query, query)

    def adapt_to(self, *arguments: Any, **settings: Any) -> NoReturn:
        """Refuse examples with labels, which an environment has none of."""
        raise MetaLearningError(
            f"{type(self).__name__} learns from trajectories, not from labelled examples: adapt it with "
            "`lightning-meta predict`, on tasks of its environment"
        )

    def check_data(self, source: EpisodeSource, episode: Episode) -> None:
        """Compare the environment with the policy, and with the noise and the goals of an episode."""
        check_policy(self.backbone, self.environment)
        check_noise(self.environment, episode)
