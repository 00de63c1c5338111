"""Runs of a few lines, as Lightning and the callback of results write them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

MakeRun = Callable[..., Path]


def entry(
    mean: list[float], half_width: float = 0.01, *, nontransductive: list[float] | None = None, kind: str = "accuracy",
    **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """One evaluation: the query figure after each inner step, and half of it as the non-transductive one."""

    def metric(values: list[float]) -> dict[str, Any]:
        zeros = [0] * len(values)
        return {"tasks": 600, "mean": values, "half_width": [half_width] * len(values), "diverged": zeros}

    apart = [value / 2 for value in mean] if nontransductive is None else nontransductive
    names = {"query_loss": [1.0] * len(mean), f"support_{kind}": mean, f"query_{kind}": mean}
    names[f"query_nontransductive_{kind}"] = apart
    return {
        "checkpoint": "best-step=1250.ckpt", "members": 1, "split": "test", "meta_steps": 1250, "minutes": 8.0,
        "device": "cpu, 1 thread", "seed": 0, "command": "lightning-meta fit -c x.yaml", "ways": 5, "shots": 1,
        "queries": 1, "measured": "2026-11-21T10:00:00+0000", "confusion": None,
        "metrics": {name: metric(values) for name, values in names.items()},
    } | changes  # fmt: skip


def write_run(
    root: Path, experiment: str, entries: list[dict[str, Any]] | None, *, seed: int = 0, max_steps: int = 1500,
    optimizer: dict[str, Any] | None = None, validation: dict[int, float] | None = None, kind: str = "accuracy",
    algorithm: str = "MAML", data: str = "OmniglotEpisodes", **arguments: Any,
) -> Path:  # fmt: skip
    """A run in the next free version folder; validation accuracy (or loss) by meta-steps."""
    version = len(list((root / experiment).glob("version_*")))
    folder = root / experiment / f"version_{version}"
    (folder / "checkpoints").mkdir(parents=True)
    optimizer = optimizer or {"class_path": "lightning_meta.inner.SGD", "init_args": {"lr": 0.4}}
    config = {
        "seed_everything": seed,
        "trainer": {"max_steps": max_steps, "default_root_dir": str(root)},
        "model": {
            "class_path": f"lightning_meta.algorithms.{algorithm}",
            "init_args": {"inner": {"optimizer": optimizer, "steps": 1}, "lr_scheduler": None},
        },
        "data": {
            "class_path": f"lightning_meta.data.{data}",
            "init_args": {"root": f"data{version}", "ways": 5, "shots": 1, "queries": 1, **arguments},
        },
        "experiment": experiment,
        "checkpoint": {"monitor": f"val_{kind}", "mode": "max" if kind == "accuracy" else "min"},
    }
    (folder / "config.yaml").write_text("# pytorch_lightning==2.6.6\n" + yaml.safe_dump(config, sort_keys=False))
    if entries is not None:
        (folder / "checkpoints" / "results.json").write_text(json.dumps(entries))
    columns = ["step", "train/outer_loss", "val_loss", f"val_{kind}", f"val/query_{kind}/step_1_nontransductive"]
    columns += [f"val/query_{kind}/step_10_nontransductive", "test_loss"]
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(columns)))
        writer.writeheader()
        for steps, value in (validation or {}).items():
            writer.writerow({"step": steps - 1, "train/outer_loss": 0.5})
            row = {"step": steps - 1, "val_loss": 0.5, f"val_{kind}": value}
            writer.writerow(row | {columns[4]: value / 2, columns[5]: value / 4})
        writer.writerow({"step": max_steps - 1, "train/outer_loss": 0.5})
        writer.writerow({"step": max_steps + 50, "test_loss": 0.5})
    return folder


@pytest.fixture
def make_entry() -> Callable[..., dict[str, Any]]:
    return entry


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    return lambda experiment, entries=None, **changes: write_run(tmp_path / "logs", experiment, entries, **changes)
