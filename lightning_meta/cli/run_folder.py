"""The folder of a run, ROOT/EXPERIMENT/RUN: claimed by one run alone, and found again by the run that goes on."""

import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser

from lightning_meta import checkpoint_file
from lightning_meta.errors import MetaLearningError
from lightning_meta.report.settings import flatten

LAST = "last.ckpt"
_VERSION = re.compile(r"version_(\d+)")
_LOCK = ".lock"
_held: list[int] = []  # descriptors of the locks of this process
# Files of a run that has measured nothing yet.
_BEGINNING = re.compile(r"config\.yaml|hparams\.yaml|events\.out\..*|\.lock")


def check_run(name: str | None) -> None:
    """Refuse a name that is more than one folder."""
    if name is not None and (name in ("", ".", "..") or "/" in name or os.sep in name):
        raise MetaLearningError(
            f"run is {name!r}, expected the name of one folder below that of the experiment, such as first: set "
            "experiment for the folders above it"
        )


def check_direction(monitor: str | None, mode: str) -> None:
    """Refuse to keep the checkpoint with the highest loss or the lowest accuracy."""
    for figure, better in {"loss": "min", "accuracy": "max"}.items():
        if monitor and figure in monitor and mode in ("min", "max") and mode != better:
            raise MetaLearningError(
                f"checkpoint.mode is {mode}, which keeps the worst checkpoint by {monitor}: set it to {better}"
            )


def plain(parser: LightningArgumentParser, settings: Any) -> dict[str, Any]:
    """The settings of a subcommand as its ``config.yaml`` holds them."""
    content: dict[str, Any] = yaml.safe_load(parser.dump(settings, skip_unset=False))
    return content


def same_run(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two configurations learn the same: equal in seed, experiment and all settings that count in a report."""
    seed_and_experiment = [(run.get("seed_everything"), run.get("experiment")) for run in (one, other)]
    return flatten(one) == flatten(other) and seed_and_experiment[0] == seed_and_experiment[1]


def check_last(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to train from scratch in a folder that holds a checkpoint of this very run.

    Args:
        folder: that of the run.
        settings: its settings, as `plain` gives them.
    """
    last = folder / "checkpoints" / LAST
    if last.exists() and not settings.get("ckpt_path"):
        raise MetaLearningError(
            f"run is {settings.get('run')!r}, and {last} is a checkpoint of this very run: go on from it with "
            f"--ckpt_path={last}, or start another run"
        )


def claim(root: str, experiment: str) -> int | None:
    """The number of a new run, whose folder no other run gets; None on other ranks, which are told it."""
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return None
    folder = Path(root) / experiment
    taken = [int(match[1]) for path in folder.glob("*") if (match := _VERSION.fullmatch(path.name))]
    version = max(taken, default=-1) + 1
    while True:
        try:
            (folder / f"version_{version}").mkdir(parents=True)
            return version
        except FileExistsError:
            version += 1


def enter(root: str, experiment: str, run: str | None, new: list[Path]) -> int | str | None:
    """The name of a run, or the number that it claims.

    Args:
        root: folder of all experiments.
        experiment: name of the experiment.
        run: name of the run, if it was given one.
        new: to which the run's folder is added, unless it was there before.
    """
    version = claim(root, experiment) if run is None else run
    if version is not None:
        folder = Path(root) / experiment / (run or f"version_{version}")
        if run is None or not folder.exists():
            new.append(folder)
    return version


def hold(folder: Path) -> None:
    """Lock the folder of a run until `release`, or until the process ends, however it ends.

    The lock is one of the system's, since a file that is there says nothing of whether its process still is. On a disk
    that several machines share it counts on each of them alone: one that died may leave it behind.

    Raises:
        MetaLearningError: another process of this machine trains there.
    """
    if os.name != "posix":
        return
    import fcntl

    with suppress(OSError):  # where the disk cannot lock; what cannot be written is said elsewhere
        folder.mkdir(parents=True, exist_ok=True)
        _held.append(os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW))
        try:
            fcntl.lockf(_held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            host, _, process = os.read(_held[-1], 1000).decode(errors="replace").partition(" ")
            if host in ("", socket.gethostname()):  # it is about to write its name
                raise MetaLearningError(
                    f"{folder} is the folder of a run that process {process or 'of another shell'} still trains: wait "
                    "for its end, or end it"
                ) from error
            return
        os.truncate(_held[-1], 0)
        os.write(_held[-1], f"{socket.gethostname()} {os.getpid()}".encode())


def release() -> None:
    """Let other processes have the folders that this one holds."""
    while _held:
        os.close(_held.pop())


def leave(folder: Path) -> None:
    """Remove the folder of a run that was refused before it measured anything, and an experiment's that is empty."""
    written = [*folder.iterdir()] if folder.is_dir() else []
    if not all(_BEGINNING.fullmatch(path.name) for path in written):
        return
    with suppress(OSError, MetaLearningError):  # a file is still open, or the folder or experiment is another run's
        hold(folder)
        for path in {*written, folder / _LOCK}:
            path.unlink(missing_ok=True)
        folder.rmdir()
        folder.parent.rmdir()


def own_run(root: str, experiment: str, checkpoint: str | None) -> str | None:
    """The name of the run whose last checkpoint this is, where it is one of this experiment."""
    if checkpoint is None or Path(checkpoint).name != LAST:
        return None
    place = Path(checkpoint).resolve().parent
    same = place.parent.parent == (Path(root) / experiment).resolve() and place.name == "checkpoints"
    return place.parent.name if same else None


def checkpoint_folders(root: str, experiment: str, dirpath: str | None) -> list[Path]:
    """Where the checkpoints of an experiment's runs lie; the arguments are those of `find`."""
    return [Path(dirpath)] if dirpath else [*(Path(root) / experiment).glob("*/checkpoints")]


def find(which: str, root: str, experiment: str, dirpath: str | None, monitor: str | None) -> str:
    """The last or best checkpoint of that run of an experiment which wrote its last one latest.

    Args:
        which: ``last`` or ``best``.
        root: folder of all experiments.
        experiment: name of the experiment.
        dirpath: ``checkpoint.dirpath``, where checkpoints lie if it is given.
        monitor: ``checkpoint.monitor``, by which the best was chosen.

    Raises:
        MetaLearningError: there is none.
    """
    places = checkpoint_folders(root, experiment, dirpath)
    written = [place / LAST for place in places if (place / LAST).is_file()]
    last = max(written, key=lambda path: path.stat().st_mtime_ns, default=None)
    where = dirpath or f"{Path(root) / experiment}/*/checkpoints"
    if last is None:
        raise MetaLearningError(
            f"ckpt_path is {which}, but there is no {LAST} in {where}: leave it out to start a run, or give the "
            "--experiment and --trainer.default_root_dir of the run, or the file itself"
        )
    if which == "last":
        return str(last)
    states = checkpoint_file.read(last, mmap=True).get("callbacks", {})
    for key, state in states.items():
        if key.startswith(ModelCheckpoint.__qualname__) and state["monitor"] == monitor and state["best_model_path"]:
            best = last.parent / Path(state["best_model_path"]).name
            if best.is_file():
                return str(best)
    raise MetaLearningError(
        f"ckpt_path is best, but the run in {last.parent.parent} kept none by {monitor}: set checkpoint.monitor "
        "to that of its fit, or ckpt_path to last"
    )
