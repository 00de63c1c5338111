"""MAML by trust regions: Finn, Abbeel, Levine, arXiv 1703.03400, section 5.3; Schulman et al., arXiv 1502.05477."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.utils import _pytree as pytree

from lightning_meta.algorithms.policy_learner import PolicyLearner
from lightning_meta.envs.trajectories import Samples, distribution, masked_mean
from lightning_meta.episode import Episode
from lightning_meta.inner import SGD, InnerLoop, last
from lightning_meta.learner.checks.reinforcement import check_rounding, check_trust_region
from lightning_meta.learner.checks.trainer import check_divergence
from lightning_meta.mapping import Compiled, MetaGradient, map_tasks
from lightning_meta.params import Params, flatten, map_params, unflatten
from lightning_meta.solvers.trust_region import Outcome, TrustRegion

REMEDY = "Lower model.inner.optimizer.lr or model.region.max_kl"  # there is no outer rate, and nothing is clipped


class Recorded(NamedTuple):
    """Of one task, what is held fixed during a meta-step."""

    task: Episode
    inner: tuple[Samples, ...]  # of every inner step
    outer: Samples  # of the adapted policy
    outputs: Tensor  # of the adapted policy at the outer observations, (trajectories, horizon, 2 * actions)


class Parts(NamedTuple):
    """The functions of a chunk of tasks that a meta-step is put together from, as they are or compiled."""

    record: Callable[[Params, Episode], Recorded]
    values: Callable[[Params, Recorded], Tensor]
    gradient: Callable[[Params, Recorded], Params]
    product: Callable[[Params, Recorded, Params], Params]


class TRPOMAML(PolicyLearner):
    """MAML for reinforcement learning whose meta-step is one of trust region policy optimisation.

    All trajectories, those of the inner steps and those of the adapted policies, are sampled once and held fixed. In
    the meta-parameters, through the inner steps, it lowers the mean over tasks of the surrogate loss

        L = - mean of (probability of the action under the adapted policy / what it was) times advantage

    while the mean KL divergence of the adapted policies from what they were stays within a bound: by conjugate
    gradients on products with the KL's Hessian, and by backtracking from the longest step that its quadratic model
    allows. Where no length improves the surrogate within the bound, the meta-step changes nothing. The step is taken by
    plain descent of rate 1, so that Lightning counts it.

    Args:
        backbone: the policy.
        inner: the inner loop.
        region: the trust region.

    Raises:
        MetaLearningError: as in `PolicyLearner`; or a number makes no trust region.
    """

    def __init__(
        self,
        backbone: nn.Module,
        inner: InnerLoop = InnerLoop(SGD(0.1), evaluation_steps=3),
        *,
        region: TrustRegion = TrustRegion(),
        **settings: Any,
    ) -> None:
        super().__init__(
            backbone, inner, outer_reduction="mean", lr_scheduler=None, replace_norms=False,
            optimizer=partial(torch.optim.SGD, lr=1.0), **settings,
        )  # fmt: skip
        check_trust_region(region)
        self.region = region
        self.automatic_optimization = False

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """REINFORCE on the trajectories of the adapted policy, whose gradient is the surrogate's."""
        adapted, _ = last(self.adapt(params, task))
        return self.policy_loss(adapted, self.sample(adapted, task.query_x, task.query_y)), carry

    # Pure functions of one task.

    def record(self, params: Params, task: Episode) -> Recorded:
        """Adapt, and keep the trajectories on the way."""
        inner: list[Samples] = []
        steps = self.adapt(params, task, loss=lambda fast, rows, step: self.policy_loss(fast, inner[step]))
        fast, _ = next(steps)
        for rows in task.inner_order:
            inner.append(self.sample(fast, task.support_x[rows], task.support_y[rows]))
            fast, _ = next(steps)  # learns from what was just sampled
        outer = self.sample(fast, task.query_x, task.query_y)
        return Recorded(task, tuple(inner), outer, self.outputs(fast, outer))

    def outputs(self, fast: Params, samples: Samples) -> Tensor:
        """The policy's outputs at the observations of ``samples``, (trajectories, horizon, 2 * actions)."""
        return self.run_backbone(fast, samples.observations.flatten(0, 1)).unflatten(0, samples.mask.shape)

    def adapted_outputs(self, params: Params, recorded: Recorded) -> Tensor:
        """The adapted policy's outputs at the outer observations, after inner steps on the recorded trajectories."""
        adapted, _ = last(
            self.adapt(
                params, recorded.task, loss=lambda fast, rows, step: self.policy_loss(fast, recorded.inner[step])
            )
        )
        return self.outputs(adapted, recorded.outer)

    def surrogate_and_kl(self, params: Params, recorded: Recorded) -> Tensor:
        """The two numbers, shape (2,)."""
        new, old = distribution(self.adapted_outputs(params, recorded)), distribution(recorded.outputs)
        actions, samples = recorded.outer.actions, recorded.outer
        ratio = (new.log_prob(actions) - old.log_prob(actions)).exp()
        divergence = masked_mean(kl_divergence(old, new), samples.mask)
        return torch.stack([-masked_mean(ratio * samples.advantages, samples.mask), divergence])

    # The same of a chunk of tasks, with the task axis in front.

    def _record(self, params: Params, tasks: Episode) -> Recorded:
        recorded: Recorded = map_tasks(self.record, (None, 0), params, tasks)
        return recorded

    def _values(self, params: Params, recorded: Recorded) -> Tensor:
        """Surrogate loss and KL divergence of every task, (tasks, 2)."""
        values: Tensor = map_tasks(self.surrogate_and_kl, (None, 0), params, recorded)
        return values

    def _gradient_sum(self, params: Params, recorded: Recorded) -> Params:
        """The gradient of the surrogate loss, summed over tasks."""
        grads: Params = torch.func.grad(lambda params: self._values(params, recorded)[:, 0].sum())(params)
        return grads

    def _product_sum(self, params: Params, recorded: Recorded, vector: Params) -> Params:
        """The KL's Hessian times ``vector``, summed over tasks.

        Where the policies are what they were, the KL's gradient in their outputs is zero, so that the Hessian is
        J^T F J, with J the Jacobian of the outputs and F their Fisher matrix. That needs no third derivatives.
        """

        def outputs(params: Params) -> Tensor:
            found: Tensor = map_tasks(self.adapted_outputs, (None, 0), params, recorded)
            return found

        found, pull_back, *_ = torch.func.vjp(outputs, params)
        _, push_forward, *_ = torch.func.vjp(lambda weight: pull_back(weight)[0], torch.zeros_like(found))
        (tangent,) = push_forward(vector)  # J times vector: the derivative of J^T weight, which is linear in weight
        mean, log_std = tangent.chunk(2, -1)
        _, old_log_std = found.chunk(2, -1)
        fisher = torch.cat([mean * (-2 * old_log_std).exp(), 2 * log_std], -1)
        mask = recorded.outer.mask
        product: Params
        (product,) = pull_back(fisher * (mask / mask.sum((1, 2), keepdim=True))[..., None])
        return product

    # The meta-step.

    def setup(self, stage: str) -> None:
        """Refuse what a trust region cannot be computed in, and prepare the parts of a meta-step."""
        if stage == "fit":
            check_rounding(str(self.trainer.precision))
        super().setup(stage)
        parts = self._record, self._values, self._gradient_sum, self._product_sum
        self._parts = Parts(
            *(Compiled(part, self.task_map.constants) for part in parts) if self.task_map.compiled else parts
        )

    def teardown(self, stage: str) -> None:
        """Drop the graphs, which cannot be pickled."""
        super().teardown(stage)
        del self._parts

    def training_step(self, episode: Episode, batch_idx: int) -> Tensor:
        """One meta-step, by Lightning's manual optimization; returns the surrogate loss that it came to."""
        step, outcome = self.trust_region_step(episode)
        optimizer: Any = self.optimizers()
        for name, parameter in self.named_parameters():
            parameter.grad = step.get(name)
        optimizer.step()
        optimizer.zero_grad()
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (batch_idx + 1) % every == 0:
            self.log_training(outcome.surrogate, episode)
            self.log("train/kl", outcome.kl)
        return outcome.surrogate

    def trust_region_step(self, episode: Episode) -> tuple[Params, Outcome]:
        """What to subtract from the meta-parameters, and what it leads to, over all tasks of all ranks."""
        params, strategy, count = self.meta_parameters(), self.trainer.strategy, episode.tasks
        self.task_map.chunk.tune(
            lambda size: self._trial(next(episode.chunks(size))), count, self.device, strategy.broadcast
        )
        recorded = self._in_chunks(self._parts.record, torch.cat, episode, params)

        def total(part: Callable[..., Params], *args: Params) -> Params:
            return self._in_chunks(part, added, recorded, params, *args)

        def mean_over_ranks(tensor: Tensor) -> Tensor:
            mean: Tensor = strategy.reduce(tensor, reduce_op="mean")
            return mean

        def values(params: Params) -> Tensor:
            found: Tensor = self._in_chunks(self._parts.values, torch.cat, recorded, params)
            return found

        def product(vector: Tensor) -> Tensor:
            return mean_over_ranks(flatten(total(self._parts.product, unflatten(vector, params))) / count)

        def evaluate(step: Tensor) -> Outcome:
            moved = map_params(torch.sub, params, unflatten(step, params))
            return Outcome(*mean_over_ranks(values(moved).mean(0)))

        losses, grads = values(params)[:, 0], total(self._parts.gradient)
        result = MetaGradient(losses, grads, {})
        check_divergence(result, episode, self.trainer.global_step, strategy, REMEDY)
        before = Outcome(*mean_over_ranks(torch.stack([losses.mean(), torch.zeros_like(losses[0])])))
        step, outcome = self.region.step(mean_over_ranks(flatten(grads) / count), product, evaluate, before)
        return unflatten(step, params), outcome

    def _trial(self, tasks: Episode) -> None:
        """What a meta-step spends its time on, without other ranks."""
        params = self.meta_parameters()
        recorded = self._parts.record(params, tasks)
        self._parts.product(params, recorded, self._parts.gradient(params, recorded))

    def _in_chunks(
        self,
        part: Callable[..., Any],
        join: Callable[[list[Tensor]], Tensor],
        tasks: Any,
        params: Params,
        *args: Params,
    ) -> Any:
        """``part`` of chunks of ``tasks``, a pytree with the task axis in front, joined."""
        leaves, spec = pytree.tree_flatten(tasks)

        def run(size: int) -> Any:
            pieces = zip(*(leaf.split(size) for leaf in leaves), strict=True)
            results = [part(params, pytree.tree_unflatten(list(piece), spec), *args) for piece in pieces]
            return pytree.tree_map(lambda *parts: join(list(parts)), *results)

        return self.task_map.chunk.halve_on_out_of_memory(run, len(leaves[0]))


def added(tensors: list[Tensor]) -> Tensor:
    """Their sum."""
    return torch.stack(tensors).sum(0)
