"""What is left of Lightning's lines on a run, by the command line and from Python."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_meta import noise
from lightning_meta.mapping import missing_compiler
from tests.cli.helpers import small

SAID = ["Restoring states from the checkpoint", "`Trainer.fit` stopped", "Seed set to 0"]
PROGRAM = """
import pytorch_lightning as pl
import torch
from lightning_meta import MLP, Reptile, SinusoidEpisodes
quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
learner = Reptile(MLP(1, inputs=1, hidden=(4,)), loss=torch.nn.functional.mse_loss, compile=False, task_chunk=1)
data = SinusoidEpisodes(meta_batch_size=2, validation_tasks=2, test_tasks=2)
pl.Trainer(max_steps=2, accelerator="cpu", **quiet).fit(learner, data)
"""

SOLVES = """
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from lightning_meta import noise
from lightning_meta.mapping.inductor import fuse
noise.silence()
torch._inductor.config.force_disable_caches = True  # or nothing is compiled the second time
x = torch.eye(3)
fuse(make_fx(lambda x: [torch.linalg.solve(x, x)])(x), [x])(x)
"""


def printed(program: list[str], folder: Path) -> list[str]:
    """What a process of its own says on standard error."""
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
    finished = subprocess.run(
        [sys.executable, *program], cwd=folder, env=settings, capture_output=True, text=True, check=True
    )
    return [line for line in finished.stderr.splitlines() if line.strip()]


@pytest.mark.slow
def test_a_run_by_the_command_line_says_what_is_about_the_run(tmp_path: Path) -> None:
    arguments = [*small(tmp_path), "--model.compile=false", "--model.task_chunk=1"]
    lines = printed(["-m", "lightning_meta", "fit", *arguments], tmp_path)
    assert len(lines) == len(SAID)
    assert all(any(line.startswith(said) for line in lines) for said in SAID)


@pytest.mark.slow
def test_a_program_says_what_is_about_the_run(tmp_path: Path) -> None:
    assert printed(["-c", PROGRAM], tmp_path) == ["`Trainer.fit` stopped: `max_steps=2` reached."]


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_compiler()), reason=missing_compiler())
def test_fused_kernels_say_nothing_of_operations_that_are_no_kernels(tmp_path: Path) -> None:
    assert not [line for line in printed(["-c", SOLVES], tmp_path) if "c-shim" in line]


def test_everything_else_is_still_said(caplog: pytest.LogCaptureFixture) -> None:
    noise.silence()
    logger = logging.getLogger(noise.LOGGERS[0])
    with caplog.at_level(logging.INFO, logger.name):
        logger.info("GPU available: True (cuda), used: False")
        logger.info("Tip: For seamless cloud logging, install a package")
    assert caplog.messages == ["GPU available: True (cuda), used: False"]
