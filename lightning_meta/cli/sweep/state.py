"""The runs of a sweep on disk: which are finished, which were interrupted, and how each goes on."""

import hashlib
import io
import itertools
import pickle
import re
import shlex
import warnings
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from lightning_meta import results_file
from lightning_meta.bounded_files import read_yaml
from lightning_meta.cli.class_names import prefer_own_classes
from lightning_meta.cli.lightning_cli import MetaCLI
from lightning_meta.cli.run_folder import plain, same_run
from lightning_meta.cli.signals import Stop
from lightning_meta.errors import MetaLearningError
from lightning_meta.noise import silence
from lightning_meta.report.runs import read_run
from lightning_meta.report.settings import flatten

CONFIG, OUTPUT = "config.yaml", "output.log"
ENDED = "# lightning-meta sweep: ended with status "
LABEL_LENGTH = 120  # of the 255 bytes that a file system gives a name


@dataclass(frozen=True)
class State:
    """Where a run stands."""

    kind: str  # finished, running, interrupted, failed or waiting
    folder: Path | None = None
    meta_steps: int = 0
    seconds: float = 0.0  # of training so far

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.kind == "finished"


class _Parsed(Exception):  # noqa: N818  # not an error: it ends LightningCLI after its arguments
    pass


class _Parser(MetaCLI):
    """The command line, which stops before anything is made."""

    settings: dict[str, Any]

    def parse_arguments(self, parser: Any, args: Any) -> None:
        super().parse_arguments(parser, args)
        self._parse_ckpt_path()
        settings = plain(self._parser(self.name), self.config[self.name])
        raise _Parsed(settings)


def parse(arguments: list[str]) -> dict[str, Any]:
    """The settings of a run as its ``config.yaml`` would hold them.

    Args:
        arguments: the subcommand and what follows it.

    Raises:
        MetaLearningError: an argument is wrong.
    """
    prefer_own_classes()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        silence()
        try:
            _Parser(arguments[0], arguments[1:], [], Stop(arguments))
        except _Parsed as parsed:
            settings: dict[str, Any] = parsed.args[0]
            return settings
        except OSError as error:
            raise MetaLearningError(str(error)) from error
        except SystemExit:
            pass
    raise MetaLearningError("it asks for help or for its settings, and would train nothing: leave that out")


class Run:
    """One run of a sweep.

    Args:
        arguments: the subcommand and what follows it.
        own: those of them that tell it from the other runs.

    Raises:
        MetaLearningError: an argument is wrong, or does not go together with a sweep.
    """

    def __init__(self, arguments: list[str], own: list[str]) -> None:
        self.arguments = arguments
        self.settings = parse(arguments)
        self.fits = arguments[0] == "fit"
        if self.settings["run"]:
            raise MetaLearningError("run is set, but a sweep names its runs itself: leave it out")
        if self.fits and self.settings["checkpoint"]["dirpath"]:
            raise MetaLearningError("checkpoint.dirpath is set, but each run of a sweep has a folder of its own")
        self.own = own

    @property
    def experiment(self) -> Path:
        """The folder of its experiment."""
        return Path(self.settings["trainer"]["default_root_dir"], self.settings["experiment"])

    @property
    def max_steps(self) -> int:
        """Meta-steps of the whole run; -1 where they are not limited."""
        return int(self.settings["trainer"]["max_steps"])

    @cached_property
    def label(self) -> str:
        """What tells it from other runs of its experiment, as the name of a folder."""
        parts = [part.lstrip("-") for part in self.own if re.match(r"--(?!config|experiment|seed_everything)\w", part)]
        parts.append(f"seed={self.settings['seed_everything']}")
        label = re.sub(r"[^\w.=,+-]+", "_", ",".join(parts))
        return label if len(label) <= LABEL_LENGTH else f"{label[:LABEL_LENGTH]}_{self.digest}"

    @property
    def name(self) -> str:
        """Experiment and label, for people."""
        return f"{self.settings['experiment']}/{self.label}"

    @cached_property
    def digest(self) -> str:
        """Equal for equal runs."""
        kept = {name: self.settings.get(name) for name in ("experiment", "seed_everything")}
        checkpoint = None if self.fits else self.settings.get("ckpt_path")
        text = repr((self.arguments[0], sorted(kept.items()), sorted(flatten(self.settings).items()), checkpoint))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def lock(self) -> FileLock:
        """Held by the sweep that this run belongs to; the system frees it when its process ends, however that is."""
        folder = self.experiment / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / self.digest)

    def folders(self) -> list[Path]:
        """Folders of this run: the same experiment, seed and settings that count; those furthest on first."""
        found = [path for path in sorted(self.experiment.glob("*/")) if self._is_mine(path)]
        return sorted(found, key=lambda folder: _steps(folder)[0], reverse=True)

    def _is_mine(self, folder: Path) -> bool:
        if not (folder / CONFIG).exists():  # it ended before the run wrote it
            return _lines(folder)[:1] == [f"# {shown(self.command(folder))}"]
        try:
            settings = read_yaml(folder / CONFIG)
            alike = same_run(settings, self.settings)
        except (MetaLearningError, AttributeError, TypeError):  # cut off while it was written, or of someone else
            return False
        return alike and (self.fits or settings.get("ckpt_path") == self.settings.get("ckpt_path"))

    def state(self) -> State:
        """Where it stands, from what is on disk."""
        state = self.state_unlocked()
        return replace(state, kind="running") if not state.finished and self._locked() else state

    def state_unlocked(self) -> State:
        """Where it stands when no process works on it."""
        folders = self.folders()
        for folder in folders:
            if (folder / CONFIG).exists() and (self._tested(folder) if self.fits else self._evaluated(folder)):
                return State("finished", folder, *_steps(folder))
        own = [folder for folder in folders if _named(folder)]  # others may be a person's, who is at work there
        if not own:
            return State("waiting")
        ended = _status(own[0])
        return State("interrupted" if ended is None else f"failed ({ended})", own[0], *_steps(own[0]))

    def _locked(self) -> bool:
        if not (self.experiment / ".locks" / self.digest).exists():
            return False
        try:
            with self.lock().acquire(timeout=0):
                return False
        except Timeout:
            return True

    def _tested(self, folder: Path) -> bool:
        """Whether a fit came to its end, which is its test."""
        steps, settings = _steps(folder)[0], read_yaml(folder / CONFIG)
        whole = 0 < self.max_steps <= steps
        if not settings["data"]["init_args"].get("test_tasks") or settings["trainer"]["limit_test_batches"] == 0:
            return whole
        try:
            entries = results_file.read(folder / "checkpoints" / results_file.NAME)
        except MetaLearningError:
            return False
        fitted = any(
            entry.split == "test"
            and entry.experiment in (None, self.settings["experiment"])
            and not (entry.command or "").startswith("lightning-meta test")
            for entry in entries
        )  # by a fit: a test by hand says nothing of how far the training was
        return fitted and (whole or not settings["trainer"]["max_time"])

    def _evaluated(self, folder: Path) -> bool:
        """Whether an evaluation ended well, and its checkpoint is still the same."""
        checkpoint, output = Path(self.settings.get("ckpt_path") or ""), folder / OUTPUT
        stale = checkpoint.is_file() and output.exists() and checkpoint.stat().st_mtime > output.stat().st_mtime
        return _status(folder) == 0 and not stale

    def command(self, folder: Path) -> list[str]:
        """The arguments with which it starts or goes on in a folder."""
        arguments = [*self.arguments, f"--run={folder.name}"]
        last = folder / "checkpoints" / "last.ckpt"
        return [*arguments, f"--ckpt_path={last}"] if self.fits and last.exists() else arguments

    def free_folder(self) -> Path:
        """A folder that no other run has: its label, with a number where the label is taken."""
        numbers = (f".{number}" if number > 1 else "" for number in itertools.count(1))
        return next(folder for number in numbers if not (folder := self.experiment / f"{self.label}{number}").exists())

    def claim(self) -> Path:
        """Make the folder of a run that starts."""
        while True:
            folder = self.free_folder()
            with suppress(FileExistsError):  # a run of another sweep was faster
                folder.mkdir(parents=True)
                return folder


def shown(arguments: list[str]) -> str:
    """A command that can be pasted into a shell."""
    return shlex.join(["lightning-meta", *arguments])


def logged(folder: Path) -> int:
    """Meta-steps that the metrics of a run speak of, some of which a restart would repeat."""
    try:
        return read_run(folder)[0].meta_steps
    except (MetaLearningError, TypeError, ValueError, AttributeError, LookupError):
        return 0


def _named(folder: Path) -> bool:
    """Whether a run was started there under that name, as a sweep does."""
    return (folder / OUTPUT).exists() or not re.fullmatch(r"version_\d+", folder.name)


def _lines(folder: Path) -> list[str]:
    """What the starts in a folder printed."""
    try:
        return (folder / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _status(folder: Path) -> int | None:
    """How the last start in a folder ended; None where nothing says so."""
    match = re.fullmatch(rf"{ENDED}(\d+)", (_lines(folder) or [""])[-1])
    return int(match[1]) if match else None


def _steps(folder: Path) -> tuple[int, float]:
    """Meta-steps and seconds of training, as far as a restart would keep them."""
    try:
        last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu", mmap=True)
        return int(last["global_step"]), float(last.get("train_seconds", 0.0))
    except FileNotFoundError:
        pass
    except (OSError, EOFError, RuntimeError, KeyError, pickle.UnpicklingError):
        return 0, 0.0
    try:
        run, _ = read_run(folder)
    except (MetaLearningError, TypeError, ValueError, AttributeError, LookupError):
        return 0, 0.0
    minutes = [entry.minutes for entry in run.entries if entry.minutes]
    return (run.meta_steps, 60 * minutes[0]) if minutes else (0, 0.0)  # its checkpoints were left out
