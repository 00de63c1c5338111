"""Workers that train on copies of their own between two joinings: distributed MAML, Soulier 2020 (thesis, TH Koeln)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from lightning_meta.distributed.launcher import Launcher
from lightning_meta.errors import MetaLearningError


class LocalWorkers(DDPStrategy):
    """Data-parallel workers without DDP's reduction at every step: each trains a copy, which `JoinWeights` joins.

    Processes, devices, nodes and `torchrun` are as with Lightning's ``ddp``. The meta-batch is shared as there: of
    ``data.meta_batch_size`` tasks each worker takes its part, one in as many as there are workers, so 32 tasks a worker
    on two workers are a meta-batch of 64. With ``outer_reduction: sum`` each part stands for the whole meta-batch, so
    that workers which are joined at every step by their mean with an outer SGD train as ``ddp`` does.

    Between two joinings no worker waits for another: what the learner asks of all workers in a training step (whether
    all gradients are finite, the mean of a carry or of a logged value) each answers for itself, and the log holds
    worker 0's. Two settings of Lightning's ask all workers at every step even so: ``trainer.max_time`` and
    ``checkpoint.train_time_interval``. Validations and checkpoints see joined weights only.

    A worker that dies ends the run with an error that names the last checkpoint.

    Args:
        timeout: how long a worker waits for the others at a joining before the run ends. It matters where a connection
            breaks silently, as when a node loses its power; a process that dies is noticed at once. It must be longer
            than the workers' difference over the steps between two joinings.
    """

    def __init__(self, timeout: timedelta = timedelta(minutes=30)) -> None:
        super().__init__(timeout=timeout)
        self.apart = False  # whether the workers' weights may differ
        self.join: Callable[[], None] | None = None  # makes them equal; from `JoinWeights`
        self._alone = False

    def setup(self, trainer: Trainer) -> None:
        """As DDP, without its wrapper.

        Raises:
            MetaLearningError: nothing would ever join the workers.
        """
        if trainer.state.fn == TrainerFn.FITTING and self.join is None:
            raise MetaLearningError(
                "trainer.strategy is LocalWorkers, but nothing joins the workers: add JoinWeights with a generator to "
                "trainer.callbacks, or set trainer.strategy to ddp"
            )
        # Lightning's workers tell each other of SIGTERM, at every step and when it comes. Here each stops by itself:
        # launchers pass it on.
        signals: Any = trainer._signal_connector
        signals._sigterm_notifier_fn = lambda number, _: _stop(signals, self.launcher, number)
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        super().setup(trainer)

    def configure_ddp(self) -> None:
        """Start all workers from the values of the first."""
        assert self.model is not None
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            torch.distributed.broadcast(tensor.detach(), 0)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """A meta-step of this worker alone."""
        assert isinstance(self.launcher, _Launcher)
        self.launcher.check_lost()
        self._alone = True
        try:
            return super().training_step(*args, **kwargs)
        finally:
            self._alone = False

    def optimizer_step(self, *args: Any, **kwargs: Any) -> Any:
        """An outer step of this worker alone."""
        self.apart = True
        return super().optimizer_step(*args, **kwargs)

    def reduce(self, tensor: Tensor, group: Any = None, reduce_op: Any = "mean") -> Tensor:
        """The mean or the sum over all workers; within a training step this worker's own."""
        return tensor if self._alone else super().reduce(tensor, group, reduce_op)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:  # noqa: A002
        """Whether all (or any) say so; within a training step this worker alone."""
        return decision if self._alone else super().reduce_boolean_decision(decision, all)

    def together(self) -> None:
        """Join the workers' copies, unless nothing has happened since they were joined; all workers must call it."""
        if self.apart:
            assert self.join is not None
            self.join()
            self.apart = False

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: joined weights."""
        self.together()
        return super().lightning_module_state_dict()

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = _Launcher(self.cluster_environment, self.num_processes, self.num_nodes)


class _Launcher(Launcher):
    word, intact = "worker", "holds joined weights and is intact"


def _stop(signals: Any, launcher: Any, number: int) -> None:
    """Have the meta-step be the last one, here and in the workers that were started here."""
    if not signals.received_sigterm:
        launcher.kill(number)
    signals.received_sigterm = True
