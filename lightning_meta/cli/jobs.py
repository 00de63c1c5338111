"""The job of a scheduler or launcher that a run belongs to, by which it goes on when the job is started again.

A run leaves a file in the folder of its checkpoints that names its job and its command. A job of SLURM that was
requeued, or processes that `torchrun` restarts, go on from the last checkpoint of the run of the same job and command;
another job, or the same command once more in one job, starts a run of its own.
"""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning import Trainer
from pytorch_lightning.plugins.environments import SLURMEnvironment

from lightning_meta.bounded_files import read_text
from lightning_meta.cli.run_folder import LAST
from lightning_meta.errors import MetaLearningError

NAME = "job.json"
_ANSWER = 20.0  # seconds for scontrol
_LONGEST = 1_000_000  # bytes; a command line is shorter


class Job(NamedTuple):
    """A job: of SLURM by its number, or the processes of a `torchrun`."""

    name: str
    restarted: bool  # whether it is known to have been started before
    agent: str = ""  # of torchrun, which starts this process, and the one that takes its place


def current() -> Job | None:
    """The job of this process; None for a run that a person has started."""
    restarts = [os.environ.get(f"{launcher}_RESTART_COUNT", "0") for launcher in ("SLURM", "TORCHELASTIC")]
    restarted = any(count.isdigit() and int(count) > 0 for count in restarts)
    torchrun = os.environ.get("TORCHELASTIC_RUN_ID")
    agent = f"{socket.gethostname()} {os.getppid()}" if torchrun else ""  # one that lost no process counts no restart
    if slurm := slurm_id():
        return Job(f"SLURM job {slurm}", restarted, agent)
    return Job(f"torchrun {torchrun}", restarted, agent) if torchrun else None


def sign(folder: str, arguments: list[str], agents: list[str]) -> None:
    """Leave word of the job of this process, if it has one, or take away that of the job before.

    Args:
        folder: of the run's checkpoints.
        arguments: the subcommand and what follows it.
        agents: those of all ranks.
    """
    path, job = Path(folder, NAME), current()
    if job is None:
        path.unlink(missing_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, {"job": job.name, "arguments": arguments, "agents": agents, "requeued": False})


def find_last(arguments: list[str], folders: Iterable[Path]) -> str | None:
    """The last checkpoint of the run with which the job of this process goes on.

    Args:
        arguments: the subcommand and what follows it.
        folders: of checkpoints, one for each run.
    """
    job = current()
    if job is None:
        return None
    signed = [folder / NAME for folder in folders if (folder / NAME).is_file()]
    for path in sorted(signed, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        content = _read(path)
        if content.get("job") == job.name and content.get("arguments") == arguments:
            known = job.agent and job.agent in content.get("agents", [])
            again = job.restarted or known or content.get("requeued") is True
            last = path.with_name(LAST)
            return str(last) if again and last.is_file() else None
    return None


def requeue(number: int, trainer: Trainer | None = None, saved: str = "") -> str:
    """Have SLURM start the job again, if this signal is its warning that the time is up; what came of it.

    Args:
        number: of the signal.
        trainer: whose `SLURMEnvironment`, if it has one, says which signal that is, and whether it is wanted.
        saved: path of the checkpoint to go on from; empty where there is none.
    """
    job, environment = slurm_id(), trainer and trainer._accelerator_connector.cluster_environment
    wanted, warning = True, getattr(signal, "SIGUSR1", None)
    if isinstance(environment, SLURMEnvironment):
        wanted, warning = environment.auto_requeue, environment.requeue_signal
    if job is None or not wanted or number != warning:
        return ""
    path = Path(saved).with_name(NAME) if saved else None
    if path:
        _write(path, _read(path) | {"requeued": True})  # first, since SLURM ends this process
    try:
        answer = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=_ANSWER)
        failure = answer.returncode and (" ".join(answer.stderr.split()) or f"scontrol: status {answer.returncode}")
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    if not failure:
        return f"SLURM job {job} is requeued"
    if path:
        _write(path, _read(path) | {"requeued": False})
    return f"SLURM job {job} is not requeued ({failure})"


def slurm_id() -> str | None:
    """The job as `scontrol` names it; None outside of jobs, and in a person's own session on a cluster."""
    job, array, task = (os.environ.get(f"SLURM_{name}", "") for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID"))
    name = f"{array}_{task}" if array and task else job
    return name if SLURMEnvironment.job_id() is not None and re.fullmatch(r"\d+(_\d+)?", name) else None


def _read(path: Path) -> dict[str, Any]:
    """What such a file says; nothing where it is another's."""
    try:
        content = json.loads(read_text(path, _LONGEST))
    except (MetaLearningError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    os.replace(partial, path)
