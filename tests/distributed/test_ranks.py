"""Two ranks on gloo with half the meta-batch each equal one rank with all of it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from lightning_meta import task_values
from tests.distributed.ranks import FITS, fit

LONGEST = 200  # seconds of both ranks


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what two ranks trained, all methods in the same two processes, once for all of pytest's workers."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = shared / "two_ranks"
    with FileLock(shared / "two_ranks.lock"):
        if not folder.exists():
            folder.mkdir()
            train(folder)
            (folder / "trained").touch()
    assert (folder / "trained").exists(), (folder / "output").read_text()
    return folder


def train(folder: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("ranks.py")), str(folder)]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(timeout=LONGEST)
        finally:  # the second rank is a process of its own, which a rank that failed would leave waiting
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert status == 0, (folder / "output").read_text()


def trained(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights that a fit ended with, and the results of its test."""
    (results,) = root.rglob("results.json")
    (checkpoint,) = root.rglob("last.ckpt")
    return torch.load(checkpoint, weights_only=True)["state_dict"], json.loads(results.read_text())[0]["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", FITS)
def test_two_ranks_equal_one(algorithm: str, two_ranks: Path, tmp_path: Path) -> None:
    assert fit(algorithm, tmp_path) == 0
    one, one_metrics = trained(tmp_path / algorithm)
    two, two_metrics = trained(two_ranks / algorithm)
    # Adam blows the rounding noise of a bias before a batch norm up to 1e-17 / epsilon; a trust region has neither.
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-10 if algorithm == "TRPOMAML" else 1e-8)
    assert {metric["tasks"] for metric in two_metrics.values()} == {5}
    for name, metric in one_metrics.items():
        for key in ("mean", "half_width"):
            assert two_metrics[name][key] == pytest.approx(metric[key], abs=1e-7), name
    (one_tasks,), (two_tasks,) = (
        task_values.read(next(root.rglob("tasks.json"))) for root in (tmp_path / algorithm, two_ranks / algorithm)
    )
    assert one_tasks.tasks == two_tasks.tasks
    for name, values in one_tasks.metrics.items():
        torch.testing.assert_close(torch.tensor(two_tasks.metrics[name]), torch.tensor(values), rtol=1e-6, atol=2e-6)
