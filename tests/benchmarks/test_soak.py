"""The soak test in short: ten runs are killed and go on, and memory stays. `make soak` is the whole of it."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak" / "run.py"
RESULTS = SOAK.parents[1] / "results" / "soak.csv"
KINDS = ["MAML, two batches a meta-step", "Reptile, 64-true"]  # the quickest


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


@pytest.mark.slow  # ten runs that are killed, twelve that end, and eighty figures
def test_ten_kills_lose_nothing_and_memory_stays(tmp_path: Path) -> None:
    table = tmp_path / "soak.csv"
    short = ["--steps=16", "--modules=24", "--samples=8", "--collect", f"--output={table}"]
    command = [sys.executable, str(SOAK), "--kills=8", "--twice=2", "--kinds", *KINDS, *short]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(table)
    tried = [(row["kind"], row["tried"]) for row in found[:-2]]
    assert tried == [*((kind, "4") for kind in KINDS), *((kind, "1") for kind in KINDS)]
    assert [row["kind"] for row in found[-2:]] == ["meta-steps", "data modules"]
    assert {row["lost"] + row["different"] for row in found} == {"00"}


def test_the_committed_table_is_whole() -> None:
    found = rows(RESULTS)
    assert sum(int(row["tried"]) for row in found if row["check"] == "SIGKILL and resume") == 100
    assert len({row["kind"] for row in found if row["check"] == "SIGKILL and resume"}) == 10
    assert [row["tried"] for row in found if row["check"] == "memory"] == ["20000", "1000"]
    assert {row["lost"] + row["different"] for row in found} == {"00"}
