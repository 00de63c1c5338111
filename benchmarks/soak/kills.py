"""Runs that are killed at random moments and go on, compared with runs that were never stopped."""

import csv
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from cases import STEPS, VALIDATED, Case
from processes import Run

from lightning_meta import checkpoint_file
from lightning_meta.errors import MetaLearningError

PARTS = STEPS // VALIDATED  # of a run, between which it writes last.ckpt
_OF_STARTS = ("train_seconds", "loops", "epoch")  # Lightning counts starts; the stream's position is beside them


class Outcome(NamedTuple):
    """What became of one run that was killed."""

    meta_steps: int  # of its last checkpoint when it was killed; 0 before the first
    lost: str  # what could not be used afterwards, if anything
    different: list[str]  # what differs from the run that was never stopped


def trials(case: Case, count: int, folder: Path, moments: random.Random, again: bool = False) -> Iterator[Outcome]:
    """Kill runs of one kind.

    Args:
        case: the kind of run.
        count: runs that are killed.
        folder: for their files.
        moments: draws when they are killed: a random time after a random number of validations.
        again: whether each goes on from its last checkpoint twice, and is killed the first time before the next one.
    """
    output = folder / "output.log"
    folder.mkdir(parents=True)
    seconds = Run(case, case.arguments(str(folder / "whole")), output).wait() / (PARTS + 1)
    whole = contents(folder / "whole" / "soak" / "run")
    for trial in range(count):
        while True:
            root = folder / f"{trial}_{moments.randrange(10**9)}"
            last = root / "soak" / "run" / "checkpoints" / "last.ckpt"
            run = Run(case, case.arguments(str(root)), output)
            killed = run.kill(last, moments.randint(int(again), PARTS - again), seconds * moments.random())
            if killed and again:
                on = Run(case, [*case.arguments(str(root)), "--ckpt_path=last"], output)
                killed = on.kill(last, 1, 2 * seconds * moments.random())
            if killed:
                break  # else it has ended before
        yield resumed(case, root, whole, output)


def resumed(case: Case, root: Path, whole: dict[str, Any], output: Path) -> Outcome:
    """Let a killed run go on from its last checkpoint, or start again where it had none yet, and compare its end."""
    run, again, steps = root / "soak" / "run", case.arguments(str(root)), 0
    last = run / "checkpoints" / "last.ckpt"
    try:
        for path in run.glob("checkpoints/*.ckpt"):
            checkpoint_file.read(path)
        if last.exists():
            steps = checkpoint_file.read(last)["global_step"]
        if steps == STEPS:  # it was killed in its test
            Run(case, [*again, "--ckpt_path=best"], output, "test").wait()
        else:
            Run(case, [*again, "--ckpt_path=last"] if steps else again, output).wait()
        found = contents(run)
    except (MetaLearningError, RuntimeError) as error:
        return Outcome(steps, str(error), [])
    return Outcome(steps, "", [name for name in whole if not equal(whole[name], found[name])])


def contents(run: Path) -> dict[str, Any]:
    """What a run leaves behind, by a name for each part; nothing of it depends on time."""
    folder = run / "checkpoints"
    state = checkpoint_file.read(folder / "last.ckpt")
    callbacks = state.pop("callbacks")
    parts = {f"last.ckpt: {name}": value for name, value in state.items() if name not in _OF_STARTS}
    (saved,) = (entry for key, entry in callbacks.items() if key.startswith("ModelCheckpoint"))
    parts["best checkpoints"] = {Path(path).name: float(score) for path, score in saved["best_k_models"].items()}
    for path in folder.glob("best*.ckpt"):
        parts[f"{path.name}: weights"] = dict(checkpoint_file.read(path)["state_dict"])
    parts["names of checkpoints"] = sorted(path.name for path in folder.glob("*.ckpt"))
    parts["test"] = [entry["metrics"] for entry in json.loads((folder / "results.json").read_text())]
    parts["metrics.csv"] = logged(run / "metrics.csv")
    return parts


def logged(path: Path) -> list[dict[str, str]]:
    """The rows of the log without rates and epochs: Lightning counts every start as an epoch, and logs its rate.

    A run that was killed after its test had been logged is tested once more, and logs the same row again.
    """
    with path.open(newline="") as file:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
    kept = [{k: v for k, v in row.items() if k != "epoch" and "per_second" not in k} for row in rows]
    kept = [row for row in kept if any(not name.startswith(("step", "lr-")) for name in row)]
    return [row for place, row in enumerate(kept) if not place or row != kept[place - 1]]


def equal(one: Any, other: Any) -> bool:
    """Whether two values are the same, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.shape == other.shape
        return same and one.numpy().tobytes() == other.numpy().tobytes()
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return bool(type(one) is type(other) and (one == other or (one != one and other != other)))  # NaN is not itself
