"""Figures and predictions of a run in half precision, which NumPy does not have."""

from pathlib import Path

import pytest
import torch

from lightning_meta.cli import main
from tests.cli.helpers import SHORT_RUN, small

SINUSOID = ["--model=MAML", "--model.backbone=MLP", "--model.backbone.inputs=1", "--model.backbone.hidden=[4]"]
SINUSOID += ["--model.loss=torch.nn.functional.mse_loss", "--data=SinusoidEpisodes", "--data.meta_batch_size=2"]
SINUSOID += [
    "--data.validation_tasks=2",
    "--data.test_tasks=2",
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
]
SINUSOID += [*SHORT_RUN, "--checkpoint.monitor=val_loss", "--checkpoint.mode=min", "--model.inner.evaluation_steps=2"]
PICTURES = {"glyphs": {"adaptation", "confusion", "episode"}, "sinusoid": {"adaptation", "curves"}}


@pytest.mark.parametrize(
    ("precision", "data"), [("bf16-true", "glyphs"), ("bf16-true", "sinusoid"), ("16-true", "glyphs")]
)
def test_a_fit_draws_and_predicts(precision: str, data: str, tmp_path: Path) -> None:
    arguments = small(tmp_path) if data == "glyphs" else [*SINUSOID, f"--trainer.default_root_dir={tmp_path}"]
    arguments += [f"--trainer.precision={precision}", "--model.compile=false", "--model.task_chunk=2"]
    arguments += ["--model.optimizer=Adam", "--model.optimizer.eps=1e-4"]  # 1e-8 is zero in float16
    assert main(["fit", *arguments]) == 0
    folder = tmp_path / "experiment" / "version_0"
    assert {path.stem for path in folder.glob("*.png")} == PICTURES[data]
    assert main(["predict", *arguments, "--ckpt_path=last"]) == 0
    (path,) = tmp_path.rglob("predictions_0.pt")
    batches = torch.load(path, weights_only=True)
    assert sum(len(batch["task_ids"]) for batch in batches) == (5 if data == "glyphs" else 2)
    for batch in batches:
        assert batch["outputs"].dtype == torch.float32
        assert batch["outputs"].isfinite().all()
        assert batch["outputs"].shape[:2] == batch["targets"].shape[:2]
