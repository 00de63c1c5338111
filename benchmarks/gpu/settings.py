"""What the scripts of the GPU job share; free of torch, so that JAX has its process to itself."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

REHEARSAL = bool(os.environ.get("REHEARSAL"))  # the whole job in small, on a CPU
WAYS = 5
FILTERS = 8 if REHEARSAL else 64


class Setting(NamedTuple):
    """A meta-step on Omniglot's network, whose rate is measured."""

    algorithm: str
    shots: int
    tasks: int
    inner_steps: int = 1


SETTINGS = {
    "MAML 5w1s": Setting("MAML", 1, 32),
    "Reptile o15": Setting("Reptile", 10, 5, 5),
    "FOMAML 5w1s": Setting("FOMAML", 1, 32),
    "MAML 5w5s": Setting("MAML", 5, 32),
    "MAML 5w1s, 256 tasks": Setting("MAML", 1, 256),
    "MAML 5w1s, 5 inner steps": Setting("MAML", 1, 32, 5),
}
if REHEARSAL:
    SETTINGS = {
        name: setting._replace(shots=2, tasks=2, inner_steps=min(setting.inner_steps, 2))
        for name, setting in list(SETTINGS.items())[:2]
    }


METHODS = (
    "graph",
    "graph, Trainer.fit",
    "graph, float32",
    "fused",
    "fused, Trainer.fit",
    "fused, TF32",
    "uncompiled",
    "loop over tasks",
    "JAX",
    "JAX, TF32",
)  # of which ours are the first seven
FUSED = list(SETTINGS)[: 1 if REHEARSAL else 4]  # whose fused kernels are measured, too


class Rows:
    """Measurements that are printed, and written to a JSON file, as they come: a stage may run out of its time.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._rows: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        """Keep one measurement, with ``state``: ``ok``, ``no time left``, or what went wrong."""
        self._rows.append(row)
        print(row, flush=True)
        self._path.write_text(json.dumps(self._rows, indent=1) + "\n", encoding="utf-8")

    def exit_status(self) -> int:
        """1 where something went wrong, or nothing was measured."""
        states = {row["state"] for row in self._rows}
        return int("ok" not in states or not states <= {"ok", "no time left"})


def short(error: Exception) -> str:
    """An error as a state."""
    return f"FAILED {type(error).__name__}: {' '.join(str(error).split())[:300]}"
