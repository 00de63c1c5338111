"""The LightningModule that all algorithms share: the pieces of an algorithm, and the meta-step."""

import copy
import dataclasses
import time
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils import _pytree as pytree

from lightning_meta.algorithms import checks
from lightning_meta.algorithms.carry import Carry
from lightning_meta.algorithms.chunk import TaskChunk
from lightning_meta.algorithms.hyperparameters import INSTANTIATOR, describe_all
from lightning_meta.algorithms.probe import refuse_unmappable
from lightning_meta.algorithms.scores import EpisodeScores
from lightning_meta.episode import Episode, EpisodeSource, InnerBatches, Predictions, Split
from lightning_meta.inner import (
    Compiled,
    InnerLoop,
    MetaGradient,
    adapt,
    chunk_gradient,
    map_tasks,
    meta_gradient,
    with_gradient,
)
from lightning_meta.params import Params, map_params, named, trainable

ROWS = 512  # that are classified together in a non-transductive evaluation, to bound its memory


class MetaLearner(EpisodeScores):
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
        replace_norms: put norms that differentiate correctly in the place of PyTorch's batch and instance norms.

    Raises:
        MetaLearningError: when the backbone holds a norm that ``torch.func.vmap`` gets silently wrong.
    """

    serial = False
    needs_queries = True  # whether training learns from the query sets
    meta_steps = 0  # that the weights have been trained for
    train_seconds = 0.0  # which that took, with validation

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
        super().__init__(loss, inner.evaluation_steps)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is an instance of `nn.Module`")  # described just below
            self.save_hyperparameters()
        given = dict(self.hparams)
        arguments = INSTANTIATOR | describe_all(given)
        self.hparams.clear()
        self.save_hyperparameters(arguments)
        self._not_plain = given.keys() - arguments.keys()
        checks.refuse_settings(dataclasses.asdict(inner), task_chunk)
        checks.refuse_norms(backbone, replace_norms)
        checks.refuse_dropout(backbone)
        self.backbone = backbone
        self.inner = inner
        self.outer_reduction = outer_reduction
        self.chunk = TaskChunk(task_chunk)
        self.vectorised = task_chunk != 1
        self._compile = compile
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler
        learned = inner.optimizer.learned(trainable(backbone))
        self.inner_parameters = nn.ParameterDict({name.replace(".", "/"): rate for name, rate in learned.items()})
        self.carry = Carry()
        self._members: list[tuple[Params, Any]] = []  # of an ensemble

    # What an algorithm says, and the pieces it says it with: pure functions of one task.

    @abstractmethod
    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """Loss of one task, whose gradient in ``params`` is the algorithm's meta-gradient, and the new carry.

        Args:
            params: the meta-parameters, `meta_parameters`.
            task: one task, without the task axis.
            carry: what outlives a meta-step without being a parameter.
            progress: how much of the run is done, 0 to 1, a scalar.
        """

    def inner_state(self, carry: Any) -> Any:
        """State that the inner optimizer starts from; None for a fresh one."""
        return None

    def predictions(self, params: Params, task: Episode, carry: Any) -> Predictions:
        """Outputs for one task before adaptation and after every inner step."""
        steps = [self.classify(fast, task) for fast, _ in self.adapt(params, task, self.inner_state(carry))]
        return Predictions(*(torch.stack(outputs) for outputs in zip(*steps, strict=True)))

    def classify(self, fast: Params, task: Episode) -> Predictions:
        """Outputs at the weights ``fast``, each tensor (rows, outputs)."""

        def alone(x: Tensor) -> Tensor:
            return self.run_backbone(fast, torch.cat([task.support_x, x[None]]))[-1]

        support = self.run_backbone(fast, task.support_x)
        if len(task.query_x) == 0:
            return Predictions(support, support[:0], support[:0])
        query = self.run_backbone(fast, task.query_x)
        if not self.vectorised:
            return Predictions(support, query, torch.stack([alone(x) for x in task.query_x]))
        together = max(ROWS // (len(task.support_x) + 1), 1)
        return Predictions(support, query, torch.func.vmap(alone, chunk_size=together)(task.query_x))

    def adapt(self, params: Params, task: Episode, state: Any = None) -> Iterator[tuple[Params, Any]]:
        """The inner loop on the support set: weights and optimizer state before the first step and after each."""
        meta = {name.replace("/", "."): rate for name, rate in named("inner_parameters", params).items()}
        return adapt(
            lambda fast, rows: self.inner_loss(fast, task, rows), self.inner.optimizer, self.fast(params), meta,
            task.inner_order, state,
        )  # fmt: skip

    def fast(self, params: Params) -> Params:
        """Those meta-parameters that the inner loop adapts: the backbone's."""
        return named("backbone", params)

    def inner_loss(self, fast: Params, task: Episode, rows: Tensor) -> Tensor:
        """Loss of these rows of the support set: what an inner step descends."""
        outputs = self.run_backbone(fast, task.support_x[rows])
        return self.loss(outputs, task.support_y[rows], reduction=self.inner.reduction)

    def query_loss(self, fast: Params, task: Episode) -> Tensor:
        """Mean loss over the query set."""
        return self.loss(self.run_backbone(fast, task.query_x), task.query_y, reduction="mean")

    def run_backbone(self, fast: Params, x: Tensor) -> Tensor:
        """The backbone's output for ``x`` of shape (rows, ...), at other weights than its own; in float32 at least."""
        outputs: Tensor = torch.func.functional_call(self.backbone, fast, (x,))
        return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs

    def meta_parameters(self) -> Params:
        """The values of everything that is meta-learned, by name."""
        return trainable(self)

    # The meta-step.

    def setup(self, stage: str) -> None:
        """Tell the data what to draw for the inner loop, and compare its tasks with the backbone."""
        gradient = chunk_gradient(self.outer_loss)
        self._gradient = Compiled(gradient, self._constants) if self._compile else gradient
        source = getattr(self.trainer, "datamodule", None)
        if isinstance(source, EpisodeSource):
            source.train_batches = InnerBatches(self.inner.steps, self.inner.batch_size)
            source.evaluation_batches = InnerBatches(self.inner.evaluation_steps, self.inner.evaluation_batch_size)
            splits: dict[str, Split] = {"fit": "train", "validate": "validation"}
            episode = source.draw(splits.get(stage, "test"), torch.zeros(1, dtype=torch.int64))
            checks.refuse_width(self.backbone, self.loss, episode, source.outputs)
            if stage == "fit" and self.needs_queries:
                checks.refuse_no_queries(source.queries["train"], type(self).__name__)
            if stage == "fit" and self.vectorised:
                task = Episode(*(tensor[0] for tensor in episode))
                refuse_unmappable(self, "backbone", "outer_loss", task, self.carry.tree())
        carries = bool(list(self.carry.buffers()))
        checks.refuse_ranks(self.serial, self.trainer.world_size)
        checks.refuse_accumulation(carries, self.trainer.accumulate_grad_batches)

    def teardown(self, stage: str) -> None:
        """Drop the graphs, which cannot be pickled."""
        del self._gradient

    def _constants(self) -> Iterator[Tensor]:
        """What `outer_loss` may use without being given it."""
        yield from self.parameters()
        yield from self.buffers()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The outer optimizer, and its schedule over the run's own length."""
        optimizer = self._optimizer(self.parameters())
        if self._lr_scheduler is None:
            return optimizer
        scheduler = self._lr_scheduler(optimizer, self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, episode: Episode, batch_idx: int) -> Tensor:
        """One meta-step: a scalar whose value is the outer loss and whose gradient is the meta-gradient."""
        strategy, ranks = self.trainer.strategy, self.trainer.world_size
        result = self.meta_gradient(episode)
        checks.refuse_divergence(result, episode, self.trainer.global_step, strategy)
        if list(self.carry.buffers()):
            self.carry.assign(self.carry.average(result.carry, strategy.reduce) if ranks > 1 else result.carry)
        loss, grads = result.losses.mean(), result.grads
        if self.outer_reduction == "sum":  # DDP takes the mean over ranks, and Lightning over accumulated batches
            parts = ranks * self.trainer.accumulate_grad_batches
            loss, grads = result.losses.sum() * ranks, map_params(lambda grad: grad * parts, grads)
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (batch_idx + 1) % every == 0:
            self.log_training(loss, episode)
        return with_gradient(loss, grads, dict(self.named_parameters()))

    def meta_gradient(self, episode: Episode) -> MetaGradient:
        """The meta-gradient of a batch of tasks, in chunks of a size that is fast and fits into memory."""
        params, carry = self.meta_parameters(), self.carry.tree()
        progress = torch.tensor(self.trainer.global_step / max(self.trainer.max_steps, 1), device=self.device)

        def run(tasks: Episode, chunk: int) -> MetaGradient:
            return meta_gradient(
                self._gradient, params, tasks, carry, progress,
                chunk=chunk, reduction=self.outer_reduction, serial=self.serial,
            )  # fmt: skip

        tasks = 1 if self.serial else len(episode.number)
        share = self.trainer.strategy.broadcast
        self.chunk.choose(lambda size: run(next(episode.chunks(size)), size), tasks, self.device, share)
        return self.chunk.halving(lambda size: run(episode, size), tasks)

    def on_train_start(self) -> None:
        """Start the clock where an interrupted run stopped it."""
        self._clock = time.perf_counter() - self.train_seconds

    def on_train_batch_end(self, outputs: Any, batch: Episode, batch_idx: int) -> None:
        """Count meta-steps and their time."""
        self.meta_steps = self.trainer.global_step
        self.train_seconds = time.perf_counter() - self._clock

    def all_predictions(self, episode: Episode) -> Predictions:
        """`predictions` of every task, chunk by chunk: every tensor (tasks, steps + 1, rows, outputs)."""

        def run(size: int) -> Predictions:
            chunks = [self._mean_predictions(tasks) for tasks in episode.chunks(size)]
            return Predictions(*(torch.cat(parts) for parts in zip(*chunks, strict=True)))

        return self.chunk.halving(run, len(episode.number))

    def _mean_predictions(self, tasks: Episode) -> Predictions:
        weights = self._members or [(self.meta_parameters(), self.carry.tree())]
        members = [map_tasks(self.predictions, (None, 0, None), params, tasks, carry) for params, carry in weights]
        return Predictions(*(sum(parts) / len(members) for parts in zip(*members, strict=True)))

    @property
    def members(self) -> int:
        """Sets of weights over which predictions are the mean."""
        return len(self._members) or 1

    def load_members(self, states: list[dict[str, Any]]) -> None:
        """Take predictions as the mean over these weights (``state_dict``s); over its own when there are none."""
        own = copy.deepcopy(self.state_dict())
        self._members = []
        for state in states:
            self.load_state_dict(state)
            self._members.append(pytree.tree_map(torch.clone, (self.meta_parameters(), self.carry.tree())))
        self.load_state_dict(own)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what loading has to compare."""
        checkpoint["not_plain"] = sorted(self._not_plain)
        checkpoint["max_steps"] = self.trainer.max_steps
        checkpoint["train_seconds"] = self.train_seconds
        checkpoint["task_chunk"] = self.chunk.size if self.chunk.chosen else None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another architecture, algorithm or schedule."""
        checks.refuse_checkpoint(self.state_dict(), checkpoint["state_dict"])
        checks.refuse_defaults(set(checkpoint["not_plain"]) - self._not_plain)
        if self._trainer is not None and self._trainer.state.fn == "fit" and self._lr_scheduler is not None:
            checks.refuse_length(checkpoint["max_steps"], self._trainer.max_steps)
        self.meta_steps = checkpoint["global_step"]
        # An early best checkpoint, tested after the fit, does not shorten the run.
        self.train_seconds = max(self.train_seconds, checkpoint.get("train_seconds", 0.0))
        if checkpoint.get("task_chunk") is not None:
            self.chunk.restore(checkpoint["task_chunk"])
