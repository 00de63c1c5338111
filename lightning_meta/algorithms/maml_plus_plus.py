"""MAML++: Antoniou, Edwards and Storkey, "How to train your MAML", arXiv 1810.09502."""

import dataclasses
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from lightning_meta.backbones import norms
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop, LayerRates, last
from lightning_meta.learner import MetaLearner, Schedule
from lightning_meta.params import Params, named

MIN_STEP_WEIGHT = 0.03  # of an equal share: what an inner step's weight falls to while several count


class Variant(NamedTuple):
    """What a part of the run computes."""

    multi_step: bool
    second_order: bool


class MAMLPlusPlus(MetaLearner):
    """MAML with five changes that steady and quicken it, each with a switch of its own.

    Without the source's running statistics of norms by inner step: they would leak from task to task.

    Args:
        backbone: the network that is adapted.
        inner: the inner loop, with `SGD` inside.
        multi_step_loss: part of the run, 0 to 1, in which the queries are scored after every inner step. The weights
            of the k scores go from 1/k each to the last alone; afterwards only the last is computed. 0: never.
        layer_rates: learn a rate for every tensor of weights and every inner step, from the one of ``inner``.
        step_norms: learn a scale and a shift of every batch, layer and group norm for the weights before the
            first inner step and after each; the inner loop does not adapt them.
        first_order: part of the run, 0 to 1, in which the inner gradients are constants (derivative-order annealing).
        lr_scheduler: schedule of the outer rate; by default the outer rate follows a cosine to zero.

    Raises:
        MetaLearningError: what is learned for each inner step lacks steps that evaluation takes, or another inner rule
            than `SGD` should learn its rates.
    """

    def __init__(
        self,
        backbone: nn.Module,
        inner: InnerLoop = InnerLoop(steps=5, evaluation_steps=5),
        *,
        multi_step_loss: float = 0.1,
        layer_rates: bool = True,
        step_norms: bool = True,
        first_order: float = 0.0,
        lr_scheduler: Schedule | None = CosineAnnealingLR,  # type: ignore[assignment]
        **settings: Any,
    ) -> None:
        _check(inner, multi_step_loss, layer_rates, step_norms, first_order)
        inner_with_rates = inner  # under another name: a checkpoint keeps `inner` as it was given
        if layer_rates and isinstance(inner.optimizer, SGD):
            inner_with_rates = dataclasses.replace(inner, optimizer=LayerRates(inner.optimizer.lr, inner.steps))
        super().__init__(backbone, inner_with_rates, lr_scheduler=lr_scheduler, **settings)
        self.multi_step_loss = multi_step_loss
        self.first_order = first_order
        self.norms = nn.ParameterDict()  # name -> (steps + 1, features)
        for name, parameter in _norm_parameters(backbone).items() if step_norms else ():
            key = name.replace(".", "/")
            self.norms[key] = torch.stack([parameter.detach()] * (inner.steps + 1))
            parameter.requires_grad_(False)
            if key in self.inner_parameters:  # the inner loop adapts it no more, so its rates would serve nothing
                del self.inner_parameters[key]

    def outer_loss(
        self, params: Params, task: Episode, carry: Any, progress: Tensor, variant: Variant = Variant(False, True)
    ) -> tuple[Tensor, Any]:
        """Query loss after adaptation, in the first part of the run with those after each inner step."""
        steps = self.adapt(params, task, second_order=variant.second_order)
        if not variant.multi_step:
            return self.query_loss(last(steps)[0], task), carry
        losses = torch.stack([self.query_loss(fast, task) for fast, _ in islice(steps, 1, None)])
        return (self.step_weights(progress) * losses).sum(), carry

    def step_weights(self, progress: Tensor) -> Tensor:
        """Of the query losses after inner steps 1..k: equal at first, then less and less for all but the last."""
        count = self.inner.steps
        early = ((1 - progress / self.multi_step_loss) / count).clamp(min=MIN_STEP_WEIGHT / count)
        return torch.cat([early.expand(count - 1), (1 - (count - 1) * early)[None]])

    def variant_at(self, progress: float) -> Variant:
        return Variant(self.inner.steps > 0 and progress < self.multi_step_loss, progress >= self.first_order)

    def unadapted_params(self, params: Params, step: int) -> Params:
        """The norms' scales and shifts at this inner step."""
        return {name.replace("/", "."): values[step] for name, values in named("norms", params).items()}


def _norm_parameters(backbone: nn.Module) -> dict[str, nn.Parameter]:
    kinds = norms.BatchNorm, norms.LayerNorm, nn.GroupNorm
    found = {
        f"{name}.{key}": parameter
        for name, part in backbone.named_modules()
        if isinstance(part, kinds)
        for key, parameter in part.named_parameters()
        if parameter.requires_grad  # a frozen norm stays as it is
    }
    names = dict(backbone.named_parameters())  # without second names of one tensor
    return {name: parameter for name, parameter in found.items() if name in names}


def _check(inner: InnerLoop, multi_step_loss: float, layer_rates: bool, step_norms: bool, first_order: float) -> None:
    for name, part in {"multi_step_loss": multi_step_loss, "first_order": first_order}.items():
        if not 0 <= part <= 1:
            raise MetaLearningError(f"model.{name} is {part}, expected a part of the run from 0 to 1")
    learned = [name for name, value in {"layer_rates": layer_rates, "step_norms": step_norms}.items() if value]
    if learned and inner.evaluation_steps > inner.steps:
        raise MetaLearningError(
            f"model.inner.evaluation_steps is {inner.evaluation_steps}, but {' and '.join(learned)} are learned for "
            f"the {inner.steps} of model.inner.steps: set evaluation_steps to {inner.steps} or less, raise steps, "
            f"or set model.{' and model.'.join(learned)} to false"
        )
    if layer_rates and not isinstance(inner.optimizer, SGD):
        raise MetaLearningError(
            f"model.layer_rates is true, but model.inner.optimizer is {type(inner.optimizer).__name__}: "
            "set it to SGD, whose rate the learned ones start from, or layer_rates to false"
        )
