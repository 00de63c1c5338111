"""Joining the copies of several workers: distributed MAML, Soulier 2020 (thesis, TH Koeln)."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

from lightning_meta.distributed.local_workers import LocalWorkers
from lightning_meta.distributed.weight_generators import WeightGenerator
from lightning_meta.errors import MetaLearningError

LOSS_HISTORY = 5  # losses of each worker that a generator sees


class JoinWeights(Callback):
    """Joins the workers' copies of the learner to their weighted sum; for ``trainer.strategy: LocalWorkers``.

    At every ``every``-th meta-step, before a validation, before a checkpoint and at the end. What is joined, all by the
    same weights and in float64 (so that what is equal on all workers stays as it is): the parameters; the outer
    optimizer's floating-point state, such as Adam's moments, which belong to the weights that they are the history of;
    and the learner's carry. Learning rates and step counts follow the meta-steps and are equal anyway. The thesis does
    not say what becomes of the optimizer.

    Args:
        generator: decides how much each copy counts, from the outer losses of the worker's own tasks.
        every: meta-steps from one joining to the next.

    Raises:
        MetaLearningError: ``every`` is not a number of meta-steps.
    """

    def __init__(self, generator: WeightGenerator, every: int = 1) -> None:
        if every < 1:
            raise MetaLearningError(
                f"every of JoinWeights is {every}, expected a number of meta-steps that is at least 1"
            )
        self.generator = generator
        self.every = every
        self._losses: deque[Tensor] = deque(maxlen=LOSS_HISTORY)  # this worker's own
        self._all_losses = torch.zeros(0, 0)  # all workers' when they were last joined, (workers, up to LOSS_HISTORY)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the strategy how to join.

        Raises:
            MetaLearningError: there is nothing to join, or no way to.
        """
        if stage == "fit":
            strategy = _strategy(trainer)
            _refuse(trainer, pl_module, self.generator)
            strategy.join = lambda: self._join(strategy, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the losses of a checkpoint, unless it is of another number of workers."""
        if len(self._all_losses) == trainer.world_size:
            self._losses.extend(self._all_losses[trainer.global_rank])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss, and join at every n-th meta-step."""
        self._losses.append(outputs["loss"])
        if trainer.global_step % self.every == 0:
            _strategy(trainer).together()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join during a fit, so that all workers validate the same."""
        if trainer.state.fn == TrainerFn.FITTING:
            _strategy(trainer).together()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join for good."""
        _strategy(trainer).together()

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self._all_losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._all_losses = state_dict["losses"]

    def _join(self, strategy: LocalWorkers, learner: LightningModule) -> None:
        carry: Any = learner.carry
        held = list(_state(strategy.optimizers))
        own = torch.tensor([*self._losses, sum(tensor.numel() for tensor in held)], dtype=torch.float64)
        own = own.to(strategy.root_device)
        rows = [torch.empty_like(own) for _ in range(strategy.world_size)]
        torch.distributed.all_gather(rows, own)
        gathered = torch.stack(rows).cpu()
        self._all_losses, sizes = gathered[:, :-1], gathered[:, -1]
        weights = self.generator(self._all_losses)
        if (sizes != sizes[0]).any():  # mixed precision has some workers leave out their first steps
            held = []
        join(
            [*learner.parameters(), *carry.buffers(), *held],
            weights[strategy.global_rank],
            strategy.root_device,
        )


@torch.no_grad()
def join(tensors: Iterable[Tensor], weight: Tensor, device: torch.device) -> None:
    """Set every floating-point tensor to its weighted sum over all workers, which must call this together.

    Args:
        tensors: of any shapes; those of other workers have the same.
        weight: this worker's, a scalar.
        device: where the workers are connected.
    """
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    total = torch.cat([tensor.flatten().to(device, torch.float64) for tensor in floats]) * weight.item()
    torch.distributed.all_reduce(total)
    for tensor, piece in zip(floats, total.split([tensor.numel() for tensor in floats]), strict=True):
        tensor.copy_(piece.view_as(tensor))


def _state(optimizers: Iterable[Optimizer]) -> Iterator[Tensor]:
    """Tensors of the optimizers' state, in an order that is the same on all workers."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                values = optimizer.state.get(parameter, {}).values()
                yield from (value for value in values if isinstance(value, Tensor) and value.is_floating_point())


def _strategy(trainer: Trainer) -> LocalWorkers:
    strategy = trainer.strategy
    if not isinstance(strategy, LocalWorkers):
        raise MetaLearningError(
            f"trainer.callbacks holds JoinWeights, but trainer.strategy is {type(strategy).__name__}, where no worker "
            "trains a copy of its own: set trainer.strategy to {class_path: LocalWorkers}"
        )
    return strategy


def _refuse(trainer: Trainer, learner: LightningModule, generator: WeightGenerator) -> None:
    if trainer.world_size < 2:
        raise MetaLearningError(
            f"JoinWeights with {type(generator).__name__} joins the copies of several workers, but there is one: "
            "set trainer.devices (or trainer.num_nodes) to 2 or more, or take JoinWeights and LocalWorkers out of "
            "trainer.callbacks and trainer.strategy"
        )
    if not learner.automatic_optimization:
        raise MetaLearningError(
            f"{type(learner).__name__} optimises by itself and reports no loss to weigh the workers by: take "
            "JoinWeights and LocalWorkers out of trainer.callbacks and trainer.strategy"
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        saves = isinstance(callback, ModelCheckpoint) and callback.save_on_exception
        if saves or isinstance(callback, OnExceptionCheckpoint):
            raise MetaLearningError(
                f"{type(callback).__name__} saves after an error, when the workers cannot be joined any more: set "
                "checkpoint.save_on_exception to false; the last checkpoint before the error stays in any case"
            )
