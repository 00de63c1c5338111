"""Workers that train on copies of their own between two joinings: distributed MAML, Soulier 2020 (thesis, TH Koeln)."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from lightning_meta.errors import MetaLearningError

_WATCH = 0.2  # seconds between two looks at the workers
_GRACE = 10.0  # seconds that a run has to end by itself after a worker died


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


class _Launcher(_SubprocessScriptLauncher):
    """Lightning's launcher, whose own watch kills the run without a word when a worker dies."""

    _trainer: Any = None
    _ends = False  # whether this process is about to end by itself

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Start the other workers, unless they are there, and run the function in this one.

        Raises:
            MetaLearningError: a worker died.
        """
        self._trainer = trainer
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            threading.Thread(target=self._watch, daemon=True).start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            self._ends = True
            if not _of_connection(error):
                raise
            time.sleep(2 * _WATCH)  # the connection is gone before the process is
            raise MetaLearningError(self._message(str(error).partition(". ")[0])) from error
        finally:
            if self._ends:
                self.kill(signal.SIGKILL)

    def check_lost(self) -> None:
        """Stop training when one of the workers that were started here has ended."""
        if self._lost():
            raise MetaLearningError(self._message(""))

    def _lost(self) -> str:
        """Which workers have ended, and how; nothing where none has."""
        ended = []
        for rank, process in enumerate(self.procs, start=1):
            if (status := process.poll()) is not None:
                how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
                ended.append(f"worker {rank} (process {process.pid}) {how}")
        return ", ".join(ended)

    def _message(self, said: str) -> str:
        trainer = self._trainer
        lost = self._lost() or (
            f"worker {trainer.global_rank} lost another worker, which died or did not answer within the timeout of "
            f"trainer.strategy ({said})"
        )
        if trainer.state.fn != TrainerFn.FITTING:
            return f"{lost}, and the others cannot go on without it: run the command again"
        checkpoint = trainer.checkpoint_callback
        path = ""
        if isinstance(checkpoint, ModelCheckpoint):
            path = checkpoint.last_model_path or checkpoint.best_model_path
        if path:
            remedy = f"The last checkpoint holds joined weights and is intact: go on from it with --ckpt_path {path}"
        else:
            remedy = "There is no checkpoint yet: start again, and lower trainer.val_check_interval to have one earlier"
        return f"{lost} at about meta-step {trainer.global_step}, and the others cannot go on without it. {remedy}"

    def _watch(self) -> None:
        """End a run that does not end by itself after a worker died, such as one that waits for it on a GPU."""
        while not any(process.poll() for process in self.procs):
            time.sleep(_WATCH)
        time.sleep(_GRACE)
        if not self._ends:
            print(f"lightning-meta: error: {self._message('')}", file=sys.stderr, flush=True)
            self.kill(signal.SIGKILL)
            os._exit(2)


def _stop(signals: Any, launcher: Any, number: int) -> None:
    """Have the meta-step be the last one, here and in the workers that were started here."""
    if not signals.received_sigterm:
        launcher.kill(number)
    signals.received_sigterm = True


def _of_connection(error: BaseException) -> bool:
    """Whether the connection between the workers failed; gloo has no class of error for it."""
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
