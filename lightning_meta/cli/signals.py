"""What a signal does to a run: its meta-step ends, ``last.ckpt`` is saved, and one line says how to go on.

A handler only takes note of the signal, because a meta-step may be in the middle of ``vmap``, where no tensor can be
saved. Where there is nothing to save (before the first meta-step and in an evaluation) the run ends at once.
"""

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.trainer.connectors.checkpoint_connector import _CheckpointConnector
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector
from pytorch_lightning.trainer.states import TrainerFn

from lightning_meta.cli import jobs
from lightning_meta.cli.blame import find_disk_error
from lightning_meta.cli.run_files import RunCheckpoint, validates_next
from lightning_meta.distributed.launcher import Launcher, explain, last_checkpoint, lost_connection
from lightning_meta.errors import MetaLearningError
from lightning_meta.escaping import printable

NAMES = "SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"
SAME_REQUEST = 1.0  # seconds: a scheduler signals every process, and launchers pass it on to their own


class Stopped(BaseException):
    """Ends a run at once."""


class Stop:
    """The request to stop, in one process of a run; as a context manager it receives the signals.

    Signals that are ignored, as `nohup` has it, stay ignored, and handlers of a person's own stay in place.

    Args:
        arguments: the subcommand and what follows it.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments
        self.number = 0  # of the signal
        self.saved = ""  # path of the checkpoint to go on from
        self.waits = False  # whether the run ends at its next meta-step, since there is something to save
        self.trainer: Trainer | None = None
        self._since, self._process = 0.0, os.getpid()
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        for name in NAMES:
            if hasattr(signal, name):  # Windows has two of them
                self._receive(getattr(signal, name))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _receive(self, number: int) -> None:
        default = signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
        if default and threading.current_thread() is threading.main_thread():
            self._handlers[number] = signal.signal(number, self._take_note)

    def _take_note(self, number: int, frame: object) -> None:
        if os.getpid() != self._process:  # a data worker, before it ignores signals
            return
        if self.number:
            if time.monotonic() - self._since > SAME_REQUEST:
                self.end_others()
                os._exit(128 + number)
            return
        self._since, self.number = time.monotonic(), number
        if not self.waits:
            raise Stopped

    def watch(self, trainer: Trainer) -> None:
        """Let a trainer end at this request, and at no signal by itself."""
        self.trainer = trainer
        trainer._signal_connector = _LeftToUs(trainer)
        trainer._checkpoint_connector = _WithoutSharedFile(trainer)
        # The ranks agree at every meta-step: Lightning's own round would tell them of the first rank alone.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.append(_StopAtMetaStep(self))
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.requeue_signal:
            self._receive(environment.requeue_signal)
        Launcher.replace(trainer, self.command)

    def no_more_to_save(self) -> None:
        """Called when the last checkpoint of a fit is written.

        Raises:
            Stopped: a signal asked for it meanwhile.
        """
        if self.trainer:
            self.agree(self.trainer)  # a signal may have come to one rank after they had agreed for the last time
        self.waits = False
        if self.number:
            raise Stopped

    def agree(self, trainer: Trainer) -> bool:
        """Whether any rank was asked to stop; all ranks ask together."""
        if trainer.world_size > 1:
            number = torch.tensor(self.number, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
            if not (agreed := int(number)):  # a signal that came meanwhile is told at the next meta-step
                return False
            self._since, self.number = self._since or time.monotonic(), agreed
        return self.number > 0

    def command(self, checkpoint: str) -> str:
        """The command that goes on from a checkpoint, as a shell takes it; the same again where there is none."""
        arguments = with_checkpoint(self.arguments, checkpoint) if checkpoint else self.arguments
        return shlex.join(["lightning-meta", *arguments])

    def end_others(self) -> None:
        """End the ranks that this process has started."""
        launcher: Any = self.trainer.strategy.launcher if self.trainer else None
        if isinstance(launcher, Launcher):
            launcher.kill(signal.SIGKILL)

    def explain(self, error: Exception) -> MetaLearningError | None:
        """What to say where another rank is gone, unless `Launcher` has said it, or a disk is full; None otherwise."""
        if self.trainer is None:
            return None
        if lost_connection(error):
            return MetaLearningError(explain(self.trainer, "", str(error), self.command))
        failure = find_disk_error(error)
        if failure is None or isinstance(error, MetaLearningError):
            return None
        saved = self.saved or (last_checkpoint(self.trainer) if self.arguments[0] == "fit" else "")
        where = os.fsdecode(failure.filename) if failure.filename else f"a file below {self.trainer.default_root_dir}"
        again = f"{'go on' if saved else 'run it again'} with {self.command(saved)}"
        return MetaLearningError(f"{where}: {failure.strerror}. When the disk is in order, {again}")

    def report(self) -> int:
        """Say how to go on, and hand the job back to SLURM if that is what the signal asks for; the exit status."""
        self.end_others()
        for number in self._handlers:  # SLURM ends the job that it starts again
            signal.signal(number, signal.SIG_IGN)
        if not rank_zero_only.rank:  # type: ignore[attr-defined]
            said = f"lightning-meta: {printable(self._said())}"
            with suppress(OSError):  # the terminal has gone, as its signal says
                print(said, file=sys.stderr, flush=True)
        return 128 + self.number

    def _said(self) -> str:
        parts = [f"stopped by {signal.Signals(self.number).name}"]
        if self.trainer and (self.saved or self.waits):
            why = f"saved in {self.saved}" if self.saved else "not saved, since the trainer is to save no checkpoints"
            parts[0] += f" after meta-step {self.trainer.global_step}, {why}"
        if self.trainer and self.arguments[0] == "fit":
            parts.append(jobs.requeue(self.number, self.trainer, self.saved))
        parts.append(f"{'go on' if self.saved else 'run it again'} with {self.command(self.saved)}")
        return "; ".join(filter(None, parts))


class _StopAtMetaStep(Checkpoint):
    """Ends a fit when a meta-step is done, after everything else that happens then: Lightning puts checkpoints last."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare where the ranks go on from: of torchrun's agents, some count a restart that others do not.

        Raises:
            MetaLearningError: not all of them go on from the same checkpoint.
        """
        first = trainer.strategy.broadcast(trainer.ckpt_path)
        if first != trainer.ckpt_path:
            raise MetaLearningError(
                f"rank {trainer.global_rank} goes on from {trainer.ckpt_path or 'no checkpoint'}, but rank 0 from "
                f"{first or 'none'}: start all ranks again with the same --ckpt_path on a folder that all of them see"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave word in the run's folder of the job that it belongs to."""
        saving, job = _saving(trainer), jobs.current()
        agents = [job.agent if job else ""]
        if job and job.agent and trainer.world_size > 1:
            agents *= trainer.world_size
            torch.distributed.all_gather_object(agents, job.agent)
        if saving and trainer.is_global_zero:
            jobs.sign(str(saving.dirpath), self.stop.arguments, agents)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here, unless a validation comes first: a run that went on would leave it out."""
        self.stop.waits = True
        if not validates_next(trainer):
            self._stop_if_asked(trainer, RunCheckpoint.save_meta_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after a validation of the fit."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._stop_if_asked(trainer, RunCheckpoint.save_as_last)

    def _stop_if_asked(self, trainer: Trainer, save: Callable[[RunCheckpoint, Trainer], str]) -> None:
        loop = trainer.fit_loop
        ends = trainer.global_step >= trainer.max_steps > 0 or (trainer.should_stop and loop._can_stop_early)
        apart = getattr(trainer.strategy, "apart", False)  # workers that are not joined do not wait for each other
        if ends or loop._should_accumulate() or apart or not self.stop.agree(trainer):
            return
        if saving := _saving(trainer):
            self.stop.saved = save(saving, trainer)
        trainer._signal_connector.received_sigterm = True  # ends the fit when this step is logged


class _LeftToUs(_SignalConnector):
    """Lightning's, which would save in the middle of a meta-step under SLURM and end with status 0 elsewhere."""

    def register_signal_handlers(self) -> None:
        """Leave the handlers as they are."""

    def teardown(self) -> None:
        """Leave them again."""


class _WithoutSharedFile(_CheckpointConnector):
    """Lightning's, which under SLURM goes on from whatever run has left a file in ``trainer.default_root_dir``."""

    _hpc_resume_path = None


def with_checkpoint(arguments: list[str], checkpoint: str) -> list[str]:
    """Arguments of a command that is to go on from a checkpoint."""
    kept = [
        one
        for place, one in enumerate(arguments)
        if one != "--ckpt_path"
        and not one.startswith("--ckpt_path=")
        and arguments[place - 1 : place] != ["--ckpt_path"]
    ]
    return [*kept, f"--ckpt_path={checkpoint}"]


def _saving(trainer: Trainer) -> RunCheckpoint | None:
    """What saves the last checkpoint, unless the run is to save none."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, RunCheckpoint)), None)
