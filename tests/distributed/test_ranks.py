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

SETTINGS = {
    "MAML": ["--model.outer_reduction=sum"],
    "FOMAML": [],
    "Reptile": ["--model.inner.optimizer=Adam", "--model.inner.steps=2", "--model.inner.batch_size=2"],
}


def run(algorithm: str, ranks: int, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    command = [sys.executable, "-m", "lightning_meta", "fit", f"--model={algorithm}", *SETTINGS[algorithm]]
    command += ["--model.backbone=Conv4", "--model.backbone.filters=4", "--model.inner.evaluation_steps=2"]
    command += ["--data=GlyphEpisodes", "--data.train_classes=12", "--data.validation_classes=4", "--data.ways=3"]
    command += ["--data.test_classes=4", "--data.meta_batch_size=4", "--data.validation_tasks=5", "--data.test_tasks=5"]
    command += ["--trainer.accelerator=cpu", f"--trainer.devices={ranks}", "--trainer.precision=64-true"]
    command += ["--trainer.max_steps=3", "--trainer.val_check_interval=3", "--trainer.log_every_n_steps=1"]
    command += [f"--trainer.default_root_dir={root}", "--trainer.enable_progress_bar=false"]
    command += ["--trainer.strategy=ddp"] if ranks > 1 else []
    root.mkdir()
    with (root / "output").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(timeout=120)
        finally:  # the second rank is a process of its own, which a rank that failed would leave waiting
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert status == 0, (root / "output").read_text()
    (results,) = root.rglob("results.json")
    (checkpoint,) = root.rglob("last.ckpt")
    return torch.load(checkpoint, weights_only=True)["state_dict"], json.loads(results.read_text())[0]["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", SETTINGS)
def test_two_ranks_equal_one(algorithm: str, tmp_path: Path) -> None:
    one, one_metrics = run(algorithm, 1, tmp_path / "one")
    two, two_metrics = run(algorithm, 2, tmp_path / "two")
    # Adam blows the rounding noise of a bias before a batch norm up to 1e-17 / epsilon.
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-8)
    assert {metric["tasks"] for metric in two_metrics.values()} == {5}
    for name, metric in one_metrics.items():
        for key in ("mean", "half_width"):
            assert two_metrics[name][key] == pytest.approx(metric[key], abs=1e-7), name
