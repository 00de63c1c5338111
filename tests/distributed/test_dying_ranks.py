"""Ranks that die: the run ends with one line that names the checkpoint and the command, or its launcher restarts it."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from lightning_meta.cli import main
from tests.cli.interrupted import command

LONGEST = 120  # seconds
FIT = ["-m", "lightning_meta"]
DDP = ["--trainer.strategy=ddp"]


@contextlib.contextmanager
def started(arguments: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, with whatever it has started ended afterwards."""
    with output.open("w") as file:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            arguments, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, env=environment
        )
    children = psutil.Process(process.pid)
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in children.children(recursive=True):
                child.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(condition: Callable[[], object], output: Path) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.02)


def last_of(root: Path) -> dict[str, Any]:
    (path,) = root.rglob("last.ckpt")
    return torch.load(path, weights_only=True)


@pytest.mark.slow  # five processes import PyTorch and Lightning
def test_a_killed_rank_ends_the_run_with_the_command_that_goes_on(tmp_path: Path, hangs_up: None) -> None:
    """Which another signal stops at the same meta-step on both ranks."""
    root, output = tmp_path / "run", tmp_path / "output"
    endless = command(
        root, *DDP, "--trainer.devices=2", "--trainer.max_steps=100000", "--trainer.val_check_interval=20"
    )
    with started([sys.executable, *FIT, *endless], output) as process:
        wait_for(lambda: [*root.rglob("last.ckpt")], output)
        (rank,) = (child for child in psutil.Process(process.pid).children() if "fit" in child.cmdline())
        killed = time.monotonic()
        rank.kill()
        assert process.wait(timeout=60) == 2
        assert time.monotonic() - killed < 60
    (said,) = [line for line in output.read_text().splitlines() if line.startswith("lightning-meta: error: ")]
    assert "Traceback" not in output.read_text()
    assert said.startswith(f"lightning-meta: error: rank 1 (process {rank.pid}) was killed by signal 9 at about meta-")
    again = shlex.split(said.partition("go on from it with lightning-meta ")[2])
    before = last_of(root)["global_step"]
    with started([sys.executable, *FIT, *again], output) as process:
        wait_for(lambda: last_of(root)["global_step"] > before, output)
        (rank,) = (child for child in psutil.Process(process.pid).children() if "fit" in child.cmdline())
        rank.send_signal(signal.SIGHUP)  # of which the other rank learns by the two of them alone
        assert process.wait(timeout=60) == 128 + signal.SIGHUP
    (said,) = [line for line in output.read_text().splitlines() if line.startswith("lightning-meta: ")]
    assert said.startswith(
        f"lightning-meta: stopped by SIGHUP after meta-step {last_of(root)['global_step']}, saved in"
    )
    assert again[-1] in said


@pytest.mark.slow  # six processes import PyTorch and Lightning
def test_torchrun_restarts_from_the_last_checkpoint_and_trains_as_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes, one of whose processes dies; without the variable a new one may look for the dead one's address."""
    run = ["--trainer.max_steps=60", "--trainer.val_check_interval=20", "--trainer.precision=64-true"]
    assert main([*command(tmp_path / "one", *run)]) == 0
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root, outputs = tmp_path / "two", [tmp_path / "0", tmp_path / "1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=1"]
    torchrun += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test"]
    fit = [*FIT, *command(root, *run, *DDP, "--trainer.num_nodes=2")]
    with (
        started([*torchrun, "--rdzv-conf=is_host=1", *fit], outputs[0]) as one,
        started([*torchrun, "--rdzv-conf=is_host=0", *fit], outputs[1]) as other,
    ):
        wait_for(lambda: [*root.rglob("last.ckpt")], outputs[0])
        (rank,) = psutil.Process(other.pid).children()
        rank.kill()
        assert [agent.wait(timeout=LONGEST) for agent in (one, other)] == [0, 0], outputs[0].read_text()
    for output in outputs:
        assert "the job is started again, and goes on from" in output.read_text()
    ends = [last_of(folder) for folder in (tmp_path / "one", root)]
    torch.testing.assert_close(dict(ends[1]["state_dict"]), dict(ends[0]["state_dict"]), rtol=1e-9, atol=1e-12)
    assert len([*root.rglob("results.json")]) == 1
