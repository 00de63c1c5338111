"""The GPU job, rehearsed in small on the CPU from packing to the tables in the repository."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
GPU = ROOT / "benchmarks" / "gpu"


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(GPU))
    return importlib.import_module("job")


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(GPU))
    return importlib.import_module("tables")


def run(*command: object, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    """Every stage, on real Omniglot where it is at hand and on drawn characters otherwise; needs no network."""
    packed, output = tmp_path / "packed", tmp_path / "out"
    real = [root for root in [os.environ.get("LIGHTNING_META_ROOT", "")] if Path(root, "omniglot-py").is_dir() and root]
    run(sys.executable, GPU / "pack.py", *real, "--output", packed, "--without-wheels")
    places = {"PACKED": str(packed), "OUT": str(output), "PYTHON": sys.executable}
    run("bash", GPU / "run.sh", REHEARSAL="1", SECONDS_IN_ALL="1800", **places)

    assert len(list(output.iterdir())) == 3
    assert "decoded images are cached" not in (output / "log.txt").read_text()  # the packed caches serve
    with tarfile.open(output / "results.tar.gz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    measured = tmp_path / "unpacked" / "measured"
    correctness, rates = (json.loads((measured / f"{name}.json").read_text()) for name in ("correctness", "rates"))
    assert {row["state"] for row in correctness + rates} == {"ok"}
    assert {row["recorded"] for row in correctness} == {True, False}
    assert len(rates) == 10  # two settings by five methods
    fused = json.loads((measured / "fused_MAML_5w1s.json").read_text())
    assert [row["state"] for row in fused] == ["ok", "ok"] and fused[0]["error"] < 1e-5

    copy = tmp_path / "repository" / "benchmarks" / "gpu"
    shutil.copytree(GPU, copy)
    for _ in range(2):  # the second time finds everything there
        table = run(sys.executable, copy / "collect.py", output)
    (version,) = (tmp_path / "repository/docs/results/runs/gpu/finn_5w1s_maml").iterdir()
    assert {path.name for path in version.iterdir()} == {"config.yaml", "metrics.csv", "checkpoints"}
    assert list(version.glob("checkpoints/best-*.ckpt"))
    assert str(tmp_path) not in (version / "config.yaml").read_text()
    assert "| gpu/finn_5w1s_maml | " in table
    assert "| MAML | float64 | 2 of 2 |" in table


@pytest.mark.parametrize(("program", "seconds"), [("raise SystemExit(3)", 60), ("import time; time.sleep(60)", 0)])
def test_a_stage_that_fails_fails_the_job(job: ModuleType, tmp_path: Path, program: str, seconds: float) -> None:
    stages = job.Job(tmp_path / "work", tmp_path / "out", 60)
    stages.finish("right", stages.start("right", "-c", ""), 60)
    assert not stages.failed
    stages.finish("wrong", stages.start("wrong", "-c", program), seconds)
    assert stages.failed
    stages.report()
    assert "== wrong" in (tmp_path / "out" / "log.txt").read_text()


@pytest.mark.parametrize(("step_ms", "reached"), [(9.35, 21_972), (7.158, 24_981)])
def test_lengths_end_within_the_time(job: ModuleType, step_ms: float, reached: int) -> None:
    """Of MAML and FOMAML, 5w1s, beside one another and a third on an H100: their meta-steps in 289 s."""
    training = job.Training("finn_5w1s_maml", "MAML 5w1s", 60_000, 5000)
    assert 0.6 * reached < job.length_that_fits(training, step_ms, 301) < reached
    assert job.length_that_fits(training._replace(length=4000), step_ms, 301) == 4000
    assert job.length_that_fits(training, step_ms, 0) == 100


def test_trainings_alone_go_by_the_committed_rates(job: ModuleType, tables: ModuleType) -> None:
    rates = tables.read_rows(tables.RESULTS / "rates.csv")
    assert {training.setting for training in job.TRAININGS} <= {
        row["setting"] for row in rates if row["method"] == "graph, Trainer.fit"
    }


def test_the_committed_tables_are_those_of_the_committed_measurements(tables: ModuleType) -> None:
    assert tables.all_tables() == (tables.RESULTS / "table.md").read_text()
