"""The LightningModule of every method: its settings, the pieces that a method is written with, and the meta-step."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from functools import cached_property, partial
from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from lightning_meta.episode import Episode, EpisodeSource, InnerBatches, Predictions
from lightning_meta.inner import InnerLoop, scored_steps, unroll
from lightning_meta.learner import checks, losses
from lightning_meta.learner.adapted import AdaptedLearner, adapt_to
from lightning_meta.learner.carry import CarryBuffers
from lightning_meta.learner.checkpoints import CheckpointedModule
from lightning_meta.learner.evaluation import Evaluation
from lightning_meta.learner.fusion import Compile
from lightning_meta.learner.guarded import GuardedModule
from lightning_meta.learner.hyperparameters import by_name, save_settings
from lightning_meta.learner.linear_head import LinearHead
from lightning_meta.learner.running import predict_queries, run_both_protocols, run_module
from lightning_meta.learner.schedule import Schedule, configure_schedule
from lightning_meta.learner.scores import EpisodeScores
from lightning_meta.learner.task_map import TaskMap
from lightning_meta.mapping import with_gradient
from lightning_meta.params import Params, named, trainable


class MetaLearner(CheckpointedModule, GuardedModule, ABC):
    """Base of all methods. A method is one pure function of one task, `outer_loss`.

    Args:
        backbone: the network that is adapted: any module without running statistics.
        inner: the inner loop.
        loss: function of (outputs, targets, reduction=...), or a loss module such as ``torch.nn.CrossEntropyLoss()``.
        outer_reduction: whether the outer loss is the ``mean`` or the ``sum`` over tasks.
        optimizer: makes the outer optimizer from the parameters.
        lr_scheduler: schedule of the outer rate by meta-steps, such as ``torch.optim.lr_scheduler.CosineAnnealingLR``
            with its settings; a length that is not given is that of the run. None for a constant rate.
        task_chunk: tasks that are vectorised together; it bounds the memory and not the result, and 1 runs a plain
            loop. ``auto`` takes 16, and in a long run that is not ``deterministic`` what is faster on the first batch.
        compile: trace the meta-gradient to a ``graph``, in which values that are not tensors are frozen, and replay it,
            or compile that to ``fused`` kernels; true takes the faster if the run is long, false neither.
        replace_norms: put norms that differentiate correctly in the place of PyTorch's batch, instance and layer norms.

    Raises:
        MetaLearningError: when the backbone holds a norm that ``torch.func.vmap`` gets silently wrong.
    """

    needs_queries = True  # whether training learns from the query sets
    needs_linear_head = False  # whether the backbone's last layer is treated apart
    trains_inner_rule = True  # whether what the inner rule learns gets a gradient
    serial = False  # whether the tasks of a meta-step run one after another, each with the carry of the one before it
    compares = False  # whether outputs come from comparing features
    any_ways = False  # whether the number of classes is free: features are compared, or the last layer is made per task
    needs_fixed_loss = ""  # why nothing random may happen in training, for the message that refuses it
    trained_alike: tuple[str, ...] = ()  # names of methods with the same training, whose checkpoints it tests
    scored_steps = staticmethod(scored_steps)  # after how many inner steps of some number an evaluation is scored
    carry_per_task = False  # whether every task has a carry of its own, the task axis in front, instead of one for all

    def __init__(
        self,
        backbone: nn.Module,
        inner: InnerLoop = InnerLoop(),
        *,
        loss: Callable[..., Tensor] = functional.cross_entropy,
        outer_reduction: Literal["mean", "sum"] = "mean",
        optimizer: OptimizerCallable = lambda parameters: Adam(parameters, lr=1e-3),
        lr_scheduler: Schedule | None = None,
        task_chunk: int | Literal["auto"] = "auto",
        compile: Compile = True,  # noqa: A002
        replace_norms: bool = False,
    ) -> None:
        super().__init__()
        checks.check_layers(backbone, replace_norms)
        self.not_plain = save_settings(self)
        checks.check_settings(inner, task_chunk)
        self.backbone, self.inner, self.loss = backbone, inner, losses.as_loss(loss)
        self.outer_reduction, self._optimizer = outer_reduction, by_name(self, "optimizer", optimizer)
        self._lr_scheduler = lr_scheduler
        learned = inner.optimizer.learned(trainable(backbone))
        checks.check_learned_rule(inner, bool(learned), self.trains_inner_rule, type(self).__name__)
        self.inner_parameters = nn.ParameterDict({name.replace(".", "/"): value for name, value in learned.items()})
        self.carry = CarryBuffers()
        scored = checks.check_scored_steps(self.scored_steps, inner, type(self).__name__)
        self.scores = EpisodeScores(scored, task_chunk != 1)
        self.task_map, self.evaluation = TaskMap(self, task_chunk, compile), Evaluation(self, task_chunk, compile)
        self.meta_steps, self.train_seconds = 0, 0.0
        self.trained_on: dict[str, Any] = {}  # what checkpoints say of the data
        self.input_shape: list[int] | None = None  # of the data at hand, without the rows
        self.ensemble: list[tuple[Params, Any]] = []  # params and carry of every member

    @abstractmethod
    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """Loss of one task, whose gradient in ``params`` is the method's meta-gradient, and the new carry.

        Args:
            params: the meta-parameters, `meta_parameters`.
            task: one task, without the task axis.
            carry: what outlives a meta-step without being a parameter.
            progress: how much of the run is done, 0 to 1, a scalar.
        """

    def adapted_weights(self, params: Params, task: Episode, carry: Any, scale: float = 1.0) -> Iterator[Params]:
        """The backbone's weights before adaptation and after every step on the inner loss times ``scale``."""
        objective = self.inner_objective(params, task)
        loss = (lambda *step: scale * objective(*step)) if scale != 1 else objective
        return (weights for weights, _ in self.adapt(params, task, self.inner_state(carry), loss=loss))

    def encode(self, weights: Params, x: Tensor) -> Tensor:
        """What the backbone makes of ``x`` of shape (rows, ...): its outputs, or features to compare."""
        return self.run_backbone(weights, x)

    def decide(self, task: Episode, support: Tensor, rows: Tensor) -> Tensor:
        """Outputs for ``rows``, which are encoded as ``support``, the support set, is."""
        return rows

    def predictions(self, params: Params, task: Episode, carry: Any) -> Predictions:
        """Outputs for one task before adaptation and after every inner step."""
        steps = [self.predictions_at(weights, task) for weights in self.adapted_weights(params, task, carry)]
        return Predictions(*map(torch.stack, zip(*steps, strict=True)))

    def predictions_at(self, weights: Params, task: Episode) -> Predictions:
        """Outputs for one task at complete weights, each (rows, outputs)."""
        step = run_both_protocols(partial(self.encode, weights), task, self.task_map.vectorised)
        return Predictions(*(self.decide(task, step.support, rows) for rows in step))

    def start(self, params: Params, task: Episode) -> Params:
        """Fast weights before the first inner step."""
        return self.adapted_params(params)

    def adapted_params(self, params: Params) -> Params:
        """Those meta-parameters that the inner loop adapts: the backbone's."""
        return named("backbone", params)

    def unadapted_params(self, params: Params, step: int) -> Params:
        """Weights of the backbone that the inner loop does not adapt, as they are at ``step``."""
        return {}

    def inner_state(self, carry: Any) -> Any:
        """State that the inner optimizer starts from; None for a fresh one."""
        return None

    def variant_at(self, progress: float) -> Hashable:
        """What of `outer_loss` changes in kind during a run: its argument ``variant``, unless None."""
        return None

    # The pieces that a method is written with.

    def adapt(
        self,
        params: Params,
        task: Episode,
        state: Any = None,
        second_order: bool = True,
        start: Params | None = None,
        loss: Callable[[Params, Tensor, int], Tensor] | None = None,
        first: Any = 0,
    ) -> Iterator[tuple[Params, Any]]:
        """The inner loop: complete weights and optimizer state before the first step and after each.

        Args:
            params: the meta-parameters.
            task: the task, whose ``inner_order`` says which rows of the support set a step sees.
            state: of the inner optimizer; None for a fresh one.
            second_order: whether the inner gradients are differentiated, too.
            start: fast weights to start from; `start` when None.
            loss: what the steps descend; `inner_objective` when None.
            first: number of the first step.
        """
        rule = {name.replace("/", "."): value for name, value in named("inner_parameters", params).items()}
        fast = self.start(params, task) if start is None else start
        loss = self.inner_objective(params, task) if loss is None else loss
        steps = unroll(loss, self.inner.optimizer, fast, rule, task.inner_order, state, second_order, first)
        return ((self.unadapted_params(params, first + step) | fast, state) for step, (fast, state) in enumerate(steps))

    def inner_objective(self, params: Params, task: Episode) -> Callable[[Params, Tensor, int], Tensor]:
        """What inner steps descend: a function of fast weights, rows of the support set and number of the step."""
        return lambda fast, rows, step: self.inner_loss(self.unadapted_params(params, step) | fast, task, rows)

    def inner_loss(self, weights: Params, task: Episode, rows: Tensor) -> Tensor:
        """Loss of these rows of the support set at complete weights."""
        outputs = self.run_backbone(weights, task.support_x[rows])
        return self.loss(outputs, task.support_y[rows], reduction=self.inner.reduction)

    def query_loss(self, weights: Params, task: Episode) -> Tensor:
        """Mean loss over the query set."""
        return self.loss(self.run_backbone(weights, task.query_x), task.query_y, reduction="mean")

    @cached_property
    def head(self) -> LinearHead:
        """The backbone's last layer, for methods that treat it apart; refused where it is not linear."""
        return LinearHead(self.backbone)

    def run(self, name: str, params: Params, *inputs: Tensor) -> Tensor:
        """The output of this learner's module ``name`` at its part of the meta-parameters, for modules of a method."""
        return run_module(self.get_submodule(name), named(name, params), *inputs)

    def run_backbone(self, weights: Params, x: Tensor) -> Tensor:
        """The backbone's output for ``x`` of shape (rows, ...) at ``weights``, (rows, outputs), in float32 at least."""
        return run_module(self.backbone, weights, x)

    # The meta-step and evaluation, which no method changes.

    def meta_parameters(self) -> Params:
        """The values of everything that is meta-learned, by name."""
        return trainable(self)

    def training_carry(self, episode: Episode) -> Any:
        """What a meta-step on these tasks starts from."""
        return self.carry.tree()

    def evaluation_carry(self, episode: Episode) -> Any:
        """What an evaluation of these tasks starts from."""
        return self.carry.tree()

    def store_carry(self, carry: Any) -> None:
        """Take over what a meta-step leaves."""
        self.carry.store(carry, self.trainer)

    def training_batches(self) -> InnerBatches:
        """What training wants drawn for its inner loop."""
        return InnerBatches(self.inner.steps, self.inner.batch_size)

    def evaluation_batches(self) -> InnerBatches:
        """What evaluation wants drawn for its inner loop."""
        return InnerBatches(self.inner.evaluation_steps, self.inner.evaluation_batch_size)

    def setup(self, stage: str) -> None:
        """Tell the data what to draw for the inner loop, and compare trainer, backbone and data."""
        super().setup(stage)
        self.task_map.prepare()
        self.evaluation.prepare()
        checks.check_trainer(self, self.trainer)
        if isinstance(source := getattr(self.trainer, "datamodule", None), EpisodeSource):
            source.connect(self.training_batches(), self.evaluation_batches())
            checks.check_episodes(self, source, stage)

    def check_data(self, source: EpisodeSource, episode: Episode) -> None:
        """Compare the data with the backbone, by one episode of them."""
        checks.check_backbone(self, source, episode)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The outer optimizer, and its schedule over the run's own length."""
        return configure_schedule(self._lr_scheduler, self._optimizer(self.parameters()), self.trainer)

    def training_step(self, episode: Episode, batch_idx: int) -> Tensor:
        """One meta-step: a scalar whose value is the outer loss and whose gradient is the meta-gradient."""
        trainer = self.trainer
        result = self.task_map.meta_gradient(episode, trainer.global_step / max(trainer.max_steps, 1))
        self.check_divergence(result, episode)
        self.store_carry(result.carry)
        loss, grads = result.reduced(self.outer_reduction, trainer.world_size, trainer.accumulate_grad_batches)
        if (batch_idx + 1) % (trainer.log_every_n_steps or math.inf) == 0:  # type: ignore[attr-defined]
            self.log_training(loss, episode)
        return with_gradient(loss, grads, dict(self.named_parameters()))

    def log_training(self, loss: Tensor, episode: Episode) -> None:
        """The outer loss, and support and query accuracy (or loss) before and after the inner steps of training."""
        self.log("train/outer_loss", loss, prog_bar=True, sync_dist=True)
        self.log_dict(self.scores.of_training(self.loss, self.all_predictions(episode), episode), sync_dist=True)

    def all_predictions(self, episode: Episode) -> Predictions:
        """`predictions` of every task at the `scored_steps`: every tensor (tasks, scored steps, rows, outputs)."""
        return self.evaluation.predictions(episode)

    def validation_step(self, episode: Episode, batch_idx: int) -> None:
        """Adapt to the tasks and score them."""
        self.scores.update(self.loss, self.all_predictions, episode)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log the means over all tasks of all ranks."""
        by_step, headlines = self.scores.finish("test" if self.trainer.testing else "val")
        at = {} if self.trainer.state.fn == "fit" else {"step": torch.tensor(float(self.meta_steps))}  # for loggers
        self.log_dict(by_step | at, sync_dist=True)
        self.log_dict(headlines, prog_bar=True, sync_dist=True)

    on_test_epoch_end = on_validation_epoch_end

    def adapt_to(self, support_x: Tensor, support_y: Any, **settings: Any) -> AdaptedLearner:
        """The network after adaptation to labelled examples, see `lightning_meta.learner.adapted.adapt_to`."""
        return adapt_to(self, support_x, support_y, **settings)

    def predict_step(self, episode: Episode, batch_idx: int) -> dict[str, Tensor]:
        """Outputs for the queries after the last inner step, with their targets, each (tasks, queries, ...)."""
        return predict_queries(self.all_predictions, episode)

    def teardown(self, stage: str) -> None:
        """Drop the graphs."""
        self.task_map.release()
        self.evaluation.release()
