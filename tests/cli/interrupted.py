"""Small runs that a signal interrupts in the middle of a hook, for the tests of signals and of jobs."""

import csv
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_meta.cli import main
from lightning_meta.learner import MetaLearner

STEPS = 6
SMALL = ["--model=MAML", "--model.backbone=MLP", "--model.backbone.hidden=[4]", "--model.inner.evaluation_steps=1"]
SMALL += ["--model.compile=false", "--model.task_chunk=2", "--model.loss=torch.nn.functional.mse_loss"]
SMALL += ["--data=SinusoidEpisodes", "--data.meta_batch_size=2", "--data.validation_tasks=33", "--data.test_tasks=3"]
SMALL += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
SMALL += ["--checkpoint.monitor=val_loss", "--checkpoint.mode=min", f"--trainer.max_steps={STEPS}"]


def command(root: Path, *more: str) -> list[str]:
    return ["fit", *SMALL, f"--trainer.default_root_dir={root}", "--trainer.val_check_interval=2", *more]


def at(
    monkeypatch: pytest.MonkeyPatch,
    hook: str,
    when: Callable[[Any], bool],
    number: int,
    send: Callable[[int], object] = signal.raise_signal,
) -> None:
    """Have a signal come in the middle of a hook of the learner, once, or something else that is sent."""
    plain, sent = getattr(MetaLearner, hook), list[int]()

    def interrupted(self: MetaLearner, *args: Any, **more: Any) -> Any:
        result = plain(self, *args, **more)
        if not sent and when(self):
            sent.append(number)
            send(number)
        return result

    monkeypatch.setattr(MetaLearner, hook, interrupted)


def stopped(arguments: list[str], number: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The command that a run names which a signal stops."""
    capsys.readouterr()
    assert main(arguments) == 128 + number
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning-meta: ")]
    assert line.startswith(f"lightning-meta: stopped by {signal.Signals(number).name}")
    said, _, again = line.partition(" with lightning-meta ")
    path = said.partition(", saved in ")[2].partition(";")[0]
    assert not path or (Path(path).name == "last.ckpt" and Path(path).is_file() and f"--ckpt_path={path}" in line)
    return shlex.split(again)


def ended(root: Path) -> dict[str, Any]:
    """All that a run leaves but times: of its last checkpoint, its log, its best checkpoints."""
    (folder,) = (root / "experiment").iterdir()
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    with (folder / "metrics.csv").open() as file:
        rows = [
            {name: value for name, value in row.items() if value and "per_second" not in name and name != "epoch"}
            for row in csv.DictReader(file)
        ]
    kept = {name: last[name] for name in ("optimizer_states", "lr_schedulers", "global_step", "SinusoidEpisodes")}
    best = sorted(path.name for path in folder.glob("checkpoints/best-*"))
    return kept | {"weights": dict(last["state_dict"]), "rows": [row for row in rows if len(row) > 1], "best": best}


def check_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name in ("rows", "best", "lr_schedulers"):
        assert one.pop(name) == other.pop(name), name
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=0, msg=lambda said, name=name: f"{name}: {said}")
