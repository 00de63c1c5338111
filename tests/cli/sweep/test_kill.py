"""A sweep that is killed in the middle goes on to the bit; here its runs are real."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock

from lightning_meta.cli import main
from lightning_meta.cli.sweep import plan, read_sweep
from tests.cli.helpers import small

STEPS, VALIDATED = 24, 4


def sweep_file(root: Path) -> str:
    root.mkdir()
    arguments = [*small(root, steps=STEPS), "--model.compile=false", "--model.task_chunk=1"]
    arguments += [f"--trainer.val_check_interval={VALIDATED}"]
    content = {"command": "fit", "arguments": arguments, "grid": {"model.inner.steps": [2]}}
    path = root / "sweep.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def validations(folder: Path) -> list[tuple[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [(row["step"], row["val_accuracy"]) for row in csv.DictReader(file) if row["val_accuracy"]]


@pytest.mark.slow  # three processes import PyTorch and Lightning
def test_a_killed_sweep_goes_on_to_the_bit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = sweep_file(tmp_path / "killed")
    process = subprocess.Popen([sys.executable, "-m", "lightning_meta", "sweep", file])
    (run,) = plan(read_sweep(file))
    folder = run.experiment / run.label
    last = folder / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with FileLock(f"{run.lock().lock_file}.child", timeout=20):  # held by the process of the run, which ends as well
        assert VALIDATED <= run.state_unlocked().meta_steps < STEPS
    assert main(["sweep", file]) == 0
    assert "1 of 1 finished" in capfd.readouterr().out
    output = (folder / "output.log").read_text()
    assert output.count("# lightning-meta fit") == 2
    assert f"--run=model.inner.steps=2,seed=0 --ckpt_path={last}" in output
    assert [path.name for path in folder.parent.iterdir() if path.name != ".locks"] == [folder.name]

    threads = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # as the run of a sweep has
    assert main([*run.arguments, f"--trainer.default_root_dir={tmp_path}"]) == 0
    torch.set_num_threads(threads)
    whole = tmp_path / "experiment" / "version_0"
    one, other = (torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (folder, whole))
    torch.testing.assert_close(one["state_dict"], other["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(one["optimizer_states"], other["optimizer_states"], rtol=0, atol=0)
    assert validations(folder) == validations(whole)
    assert len(validations(folder)) == STEPS // VALIDATED
    best = [sorted(path.name for path in run.glob("checkpoints/best*")) for run in (folder, whole)]
    assert best[0] == best[1]

    began = os.stat(folder / "output.log").st_mtime
    assert main(["sweep", file]) == 0  # finished, and so skipped
    assert os.stat(folder / "output.log").st_mtime == began
