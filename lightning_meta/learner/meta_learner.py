"""The LightningModule that all algorithms share: its settings, and the pieces that an algorithm is written with."""

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_meta.episode import Episode, EpisodeSource, InnerBatches, Predictions, Split
from lightning_meta.inner import InnerLoop, adapt
from lightning_meta.learner.checks.backbone import refuse_cut, refuse_dropout, refuse_frozen, refuse_norms, refuse_width
from lightning_meta.learner.checks.checkpoint import refuse_defaults, refuse_length
from lightning_meta.learner.checks.data import refuse_no_queries
from lightning_meta.learner.checks.settings import refuse_learned_rule, refuse_settings
from lightning_meta.learner.checks.trainer import refuse_monitor
from lightning_meta.learner.checks.vectorising import refuse_unmappable
from lightning_meta.learner.hyperparameters import INSTANTIATOR, describe_all
from lightning_meta.learner.linear_head import LinearHead
from lightning_meta.learner.meta_step import MetaStep
from lightning_meta.mapping import exact_attention
from lightning_meta.params import Params, named, trainable

ROWS = 512  # that are classified together in a non-transductive evaluation, to bound its memory


class MetaLearner(MetaStep):
    """Base of all algorithms. A subclass is one pure function of one task, `outer_loss`.

    Args:
        backbone: the network that is adapted: any module without running statistics.
        inner: the inner loop.
        loss: function of (outputs, targets, reduction=...), such as ``torch.nn.functional.cross_entropy`` or
            ``mse_loss``. The outer loss of a task is its mean over the queries.
        outer_reduction: whether the outer loss is the ``mean`` or the ``sum`` over tasks.
        optimizer: makes the outer optimizer from the parameters.
        lr_scheduler: makes the outer schedule from the optimizer and the number of meta-steps of the run, such as
            ``torch.optim.lr_scheduler.CosineAnnealingLR``; None for a constant rate.
        task_chunk: tasks that are vectorised together; it bounds the memory and not the result, and 1 runs a plain
            loop. ``auto`` times some on the first batch and keeps the fastest; 16 with ``trainer.deterministic``.
        compile: trace the meta-gradient to a graph and replay that. What is no tensor is then fixed at the first step.
        replace_norms: put norms that differentiate correctly in the place of PyTorch's batch, instance and layer norms.

    Raises:
        MetaLearningError: when the backbone holds a norm that ``torch.func.vmap`` gets silently wrong.
    """

    needs_queries = True  # whether training learns from the query sets
    learns_rule = True  # whether what the inner rule learns gets a gradient
    cuts_head = False  # whether the backbone's last layer is treated apart

    def __init__(
        self,
        backbone: nn.Module,
        inner: InnerLoop = InnerLoop(),
        loss: Callable[..., Tensor] = functional.cross_entropy,
        outer_reduction: Literal["mean", "sum"] = "mean",
        optimizer: OptimizerCallable = lambda parameters: Adam(parameters, lr=1e-3),
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        task_chunk: int | Literal["auto"] = "auto",
        compile: bool = True,  # noqa: A002
        replace_norms: bool = False,
    ) -> None:
        super().__init__(loss, inner.evaluation_steps, outer_reduction, task_chunk, compile)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is an instance of `nn.Module`")  # described just below
            self.save_hyperparameters()
        own = inspect.signature(type(self)).parameters  # a subclass may settle what this one asks for
        given = {name: value for name, value in self.hparams.items() if name in own}
        arguments = INSTANTIATOR | describe_all(given)
        self.hparams.clear()
        self.save_hyperparameters(arguments)
        self._not_plain = given.keys() - arguments.keys()
        refuse_settings(dataclasses.asdict(inner), task_chunk)
        refuse_norms(backbone, replace_norms)
        refuse_dropout(backbone)
        self.backbone = backbone
        self.inner = inner
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler
        learned = inner.optimizer.learned(trainable(backbone))
        refuse_learned_rule(inner, bool(learned), self.learns_rule, type(self).__name__)
        self.inner_parameters = nn.ParameterDict({name.replace(".", "/"): rate for name, rate in learned.items()})

    # The pieces that an algorithm is written with: pure functions of one task.

    def inner_state(self, carry: Any) -> Any:
        """State that the inner optimizer starts from; None for a fresh one."""
        return None

    def predictions(self, params: Params, task: Episode, carry: Any) -> Predictions:
        """Outputs for one task before adaptation and after every inner step."""
        adapted = self.adapt(params, task, self.inner_state(carry))
        steps = [self.classify(partial(self.run_backbone, fast), task) for fast, _ in adapted]
        return Predictions(*(torch.stack(outputs) for outputs in zip(*steps, strict=True)))

    def classify(self, run: Callable[[Tensor], Tensor], task: Episode) -> Predictions:
        """What ``run``, a function of a batch of rows, makes of the task, each tensor (rows, outputs)."""

        def alone(x: Tensor) -> Tensor:
            return run(torch.cat([task.support_x, x[None]]))[-1]

        support = run(task.support_x)
        if len(task.query_x) == 0:
            return Predictions(support, support[:0], support[:0])
        query = run(task.query_x)
        if not self.vectorised:
            return Predictions(support, query, torch.stack([alone(x) for x in task.query_x]))
        together = max(ROWS // (len(task.support_x) + 1), 1)
        return Predictions(support, query, torch.func.vmap(alone, chunk_size=together)(task.query_x))

    def adapt(
        self, params: Params, task: Episode, state: Any = None, second_order: bool = True
    ) -> Iterator[tuple[Params, Any]]:
        """The inner loop on the support set: weights and optimizer state before the first step and after each."""

        def loss(fast: Params, rows: Tensor, step: int) -> Tensor:
            return self.inner_loss(self.held(params, step) | fast, task, rows)

        steps = self.descend(loss, self.fast(params), params, task, state, second_order)
        return ((self.held(params, step) | fast, state) for step, (fast, state) in enumerate(steps))

    def descend(
        self,
        loss: Callable[[Params, Tensor, int], Tensor],
        fast: Params,
        params: Params,
        task: Episode,
        state: Any = None,
        second_order: bool = True,
    ) -> Iterator[tuple[Params, Any]]:
        """`lightning_meta.inner.adapt` by this learner's inner rule, in the task's order of rows."""
        meta = {name.replace("/", "."): rate for name, rate in named("inner_parameters", params).items()}
        return adapt(loss, self.inner.optimizer, fast, meta, task.inner_order, state, second_order)

    def fast(self, params: Params) -> Params:
        """Those meta-parameters that the inner loop adapts: the backbone's."""
        return named("backbone", params)

    def held(self, params: Params, step: int) -> Params:
        """Weights of the backbone that the inner loop does not adapt, as they are at ``step``."""
        return {}

    def inner_loss(self, fast: Params, task: Episode, rows: Tensor) -> Tensor:
        """Loss of these rows of the support set: what an inner step descends."""
        outputs = self.run_backbone(fast, task.support_x[rows])
        return self.loss(outputs, task.support_y[rows], reduction=self.inner.reduction)

    def query_loss(self, fast: Params, task: Episode) -> Tensor:
        """Mean loss over the query set."""
        return self.loss(self.run_backbone(fast, task.query_x), task.query_y, reduction="mean")

    @cached_property
    def head(self) -> LinearHead:
        """The backbone's last layer, for algorithms that treat it apart; refused where it is not linear."""
        return LinearHead(self.backbone)

    def run_backbone(self, fast: Params, x: Tensor) -> Tensor:
        """The backbone's output for ``x`` of shape (rows, ...), at other weights than its own; in float32 at least."""
        with exact_attention():
            return at_least_float32(torch.func.functional_call(self.backbone, fast, (x,)))

    def run_body(self, fast: Params, x: Tensor) -> Tensor:
        """What the backbone's last layer is given for ``x``, (rows, features), likewise."""
        with self.head.watched(self.backbone) as given:
            self.run_backbone(fast, x)
        return at_least_float32(given[-1])

    def run_head(self, fast: Params, features: Tensor) -> Tensor:
        """What that layer makes of such features, (rows, outputs), likewise."""
        return at_least_float32(self.head.outputs_of(self.backbone, fast, features))

    # What surrounds the meta-step.

    def setup(self, stage: str) -> None:
        """Tell the data what to draw for the inner loop, and compare its tasks with the backbone."""
        super().setup(stage)
        source = getattr(self.trainer, "datamodule", None)
        if isinstance(source, EpisodeSource):
            source.connect(
                InnerBatches(self.inner.steps, self.inner.batch_size),
                InnerBatches(self.inner.evaluation_steps, self.inner.evaluation_batch_size),
            )
            splits: dict[str, Split] = {"fit": "train", "validate": "validation"}
            episode = source.draw(splits.get(stage, "test"), torch.zeros(1, dtype=torch.int64))
            self.refuse_data(source, episode)
            refuse_frozen(self.backbone, self.fast(trainable(self)), self.inner, type(self).__name__)
            if stage == "fit" and source.has_validation():
                refuse_monitor(self.trainer.checkpoint_callbacks, episode)
            if stage == "fit" and self.needs_queries:
                refuse_no_queries(source.queries_in("train"), type(self).__name__)
            if stage == "fit" and self.vectorised:
                task = Episode(*(tensor[0] for tensor in episode))
                self.phase = self.phase_at(0.0)
                refuse_unmappable(self, "backbone", "outer_loss", task, self.training_carry(episode))

    def refuse_data(self, source: EpisodeSource, episode: Episode) -> None:
        """Compare the data with the backbone, by one episode of them."""
        refuse_width(self.backbone, self.loss, episode, source.outputs)
        if self.cuts_head:
            refuse_cut(self.backbone, self.head, episode)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The outer optimizer, and its schedule over the run's own length."""
        optimizer = self._optimizer(self.parameters())
        if self._lr_scheduler is None:
            return optimizer
        scheduler = self._lr_scheduler(optimizer, self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what loading has to compare."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["not_plain"] = sorted(self._not_plain)
        checkpoint["max_steps"] = self.trainer.max_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another architecture, algorithm or schedule."""
        super().on_load_checkpoint(checkpoint)
        refuse_defaults(set(checkpoint["not_plain"]) - self._not_plain)
        if self._trainer is not None and self._trainer.state.fn == "fit" and self._lr_scheduler is not None:
            refuse_length(checkpoint["max_steps"], self._trainer.max_steps)


def at_least_float32(outputs: Tensor) -> Tensor:
    """Losses, distances and what is learned at the end of a network are too small for half precision."""
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs
