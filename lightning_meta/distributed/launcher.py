"""What starts the ranks of a run on one machine, and ends them all with one line when one of them dies."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.trainer.states import TrainerFn

from lightning_meta.errors import MetaLearningError

_WATCH = 0.2  # seconds between two looks at the processes
_GRACE = 10.0  # seconds that a run has to end by itself after a process died


def as_option(checkpoint: str) -> str:
    """How a command goes on from a checkpoint."""
    return f"--ckpt_path {checkpoint}"


class Launcher(_SubprocessScriptLauncher):
    """Lightning's launcher, whose own watch kills the run without a word when a process dies."""

    word = "rank"  # for one of the processes
    intact = "is intact"  # what is said of the last checkpoint
    resume: Callable[[str], str] = staticmethod(as_option)  # how to go on from a checkpoint
    _trainer: Any = None
    _ends = False  # whether this process is about to end by itself

    @classmethod
    def replace(cls, trainer: Trainer, resume: Callable[[str], str]) -> None:
        """Take the place of Lightning's launcher in a trainer that has it.

        Args:
            trainer: which has not started yet.
            resume: gives the command that goes on from a checkpoint of this path.
        """
        strategy: Any = trainer.strategy
        launcher = strategy.launcher
        if type(launcher) is _SubprocessScriptLauncher:
            launcher = cls(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
            strategy._launcher = launcher
        if isinstance(launcher, cls):
            launcher.resume = resume

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Start the other processes, unless they are there, and run the function in this one.

        Raises:
            MetaLearningError: a process died.
        """
        self._trainer, self._ends = trainer, False
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            threading.Thread(target=self._watch, daemon=True).start()
        elif not self.procs:
            threading.Thread(target=self._watch_parent, args=(os.getppid(),), daemon=True).start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            self._ends = True
            if not lost_connection(error):
                raise
            time.sleep(2 * _WATCH if self.procs else _GRACE)  # the first process says it, if it is there, and ends all
            raise MetaLearningError(self.message(str(error))) from error
        finally:
            if self._ends:
                self.kill(signal.SIGKILL)
            elif not self.procs:
                self._ends = True  # its parent may end before it

    def check_lost(self) -> None:
        """Stop training when one of the processes that were started here has ended."""
        if self._lost():
            raise MetaLearningError(self.message(""))

    def message(self, said: str) -> str:
        """Who died, and how to go on.

        Args:
            said: the error of the connection.
        """
        return explain(self._trainer, self._lost(), said, self.resume, self.word, self.intact)

    def _lost(self) -> str:
        """Which processes have ended, and how; nothing where none has."""
        ended = []
        for rank, process in enumerate(self.procs, start=1):
            if (status := process.poll()) is not None:
                how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
                ended.append(f"{self.word} {rank} (process {process.pid}) {how}")
        return ", ".join(ended)

    def _watch(self) -> None:
        """End a run that does not end by itself after a process died, such as one that waits for it on a GPU."""
        while not any(process.poll() for process in self.procs):
            time.sleep(_WATCH)
        self._end_late()

    def _watch_parent(self, parent: int) -> None:
        """The same where the first process died, which started this one."""
        while os.getppid() == parent:
            time.sleep(_WATCH)
        self._end_late()

    def _end_late(self) -> None:
        time.sleep(_GRACE)
        if not self._ends:
            print(f"lightning-meta: error: {self.message('')}", file=sys.stderr, flush=True)
            self.kill(signal.SIGKILL)
            os._exit(2)


def explain(
    trainer: Any,
    lost: str,
    said: str,
    resume: Callable[[str], str],
    word: str = Launcher.word,
    intact: str = Launcher.intact,
) -> str:
    """What a person reads where a process died.

    Args:
        trainer: of this process.
        lost: which processes died, and how; empty where that is not known.
        said: the error of the connection.
        resume: gives the command that goes on from a checkpoint of this path.
        word: for one of the processes.
        intact: what is said of the last checkpoint.
    """
    lost = lost or (
        f"{word} {trainer.global_rank} lost another {word}, which died or did not answer within the timeout of "
        f"trainer.strategy ({said.partition('. ')[0].splitlines()[0] if said else 'its process is gone'})"
    )
    if trainer.state.fn != TrainerFn.FITTING:
        return f"{lost}, and the others cannot go on without it: run the command again"
    if path := last_checkpoint(trainer):
        remedy = f"The last checkpoint {intact}: go on from it with {resume(path)}"
    else:
        remedy = "There is no checkpoint yet: start again, and lower trainer.val_check_interval to have one earlier"
    return f"{lost} at about meta-step {trainer.global_step}, and the others cannot go on without it. {remedy}"


def last_checkpoint(trainer: Any) -> str:
    """Path of the checkpoint that a fit has saved last; empty where it has saved none."""
    checkpoint = trainer.checkpoint_callback
    if not isinstance(checkpoint, ModelCheckpoint):
        return ""
    return checkpoint.last_model_path or checkpoint.best_model_path


def lost_connection(error: BaseException) -> bool:
    """Whether the connection between the processes failed; gloo has no class of error for it."""
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
