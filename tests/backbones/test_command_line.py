"""Every backbone, and networks of other libraries, through the command line by their class paths."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from lightning_meta import backbones
from lightning_meta.algorithms import MAML
from lightning_meta.cli import main
from tests.cli.helpers import SHORT_RUN, refused

WAYS, SIZE = 3, 8
SMALL: dict[str, dict[str, Any]] = {  # settings that make a network small
    "MLP": {"inputs": 3 * SIZE * SIZE, "hidden": [8]},
    "Conv4": {"channels": 3, "filters": 4},
    "ResNet12": {"filters": [4, 4, 4], "channels": 3},
    "WideResNet": {"depth": 10, "width": 1},
    "VisionTransformer": {"channels": 3, "image_size": SIZE, "patch_size": 4, "layers": 1, "heads": 2, "width": 8},
}


class Encoder(nn.Module):
    """One of PyTorch's transformer layers on the rows of an image, with its own norms."""

    def __init__(self, outputs: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(3 * SIZE, 2, 16, dropout, batch_first=True)
        self.head = nn.Linear(3 * SIZE, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x.movedim(-2, 1).flatten(2)).mean(1))


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A short fit on colour images that are arrays of floats."""
    generator = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", generator.normal(size=(60, 3, SIZE, SIZE)))
    np.save(tmp_path / "y.npy", np.arange(10).repeat(6))
    data = ["--data=ArrayEpisodes", f"--data.x={tmp_path / 'x.npy'}", f"--data.y={tmp_path / 'y.npy'}"]
    data += ["--data.validation_classes=3", "--data.test_classes=3", f"--data.ways={WAYS}", "--data.shots=2"]
    data += ["--data.meta_batch_size=2", "--data.validation_tasks=2", "--data.test_tasks=2"]
    run = [
        "--trainer.logger=false",
        "--trainer.max_steps=1",
        "--trainer.val_check_interval=1",
        f"--trainer.default_root_dir={tmp_path}",
    ]
    model = ["--model=MAML", "--model.inner.evaluation_steps=1", "--model.compile=false"]
    return ["fit", *model, *data, *run, *SHORT_RUN]


def test_none_is_forgotten() -> None:
    exported = {name: inspect.signature(getattr(backbones, name)).parameters for name in backbones.__all__}
    networks = {name for name, parameters in exported.items() if "outputs" in parameters}
    assert networks - {"GaussianPolicy"} == SMALL.keys()  # which acts and does not classify


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_backbones_fit_test_and_load(name: str, command: list[str], tmp_path: Path) -> None:
    settings = [f"--model.backbone.{key}={value}" for key, value in SMALL[name].items()]
    assert main([*command, f"--model.backbone=lightning_meta.backbones.{name}", *settings]) == 0
    (checkpoint,) = tmp_path.rglob("best*.ckpt")
    loaded = MAML.load_from_checkpoint(checkpoint, weights_only=True)
    assert type(loaded.backbone).__name__ == name


def test_a_vision_transformer_of_torchvision_serves(command: list[str]) -> None:
    settings: dict[str, Any] = {
        "image_size": SIZE,
        "patch_size": 4,
        "num_layers": 1,
        "num_heads": 2,
        "hidden_dim": 8,
        "mlp_dim": 8,
    }
    settings |= {"num_classes": WAYS, "norm_layer": "torch.nn.LayerNorm"}  # whose default has no plain form
    arguments = [f"--model.backbone.{key}={value}" for key, value in settings.items()]
    command = [*command, "--model.backbone=torchvision.models.VisionTransformer", *arguments]
    assert main([*command, "--model.replace_norms=true"]) == 0


def test_transformer_layers_of_pytorch_serve(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = [*command, f"--model.backbone={__name__}.Encoder"]
    assert "replace_norms" in refused([*command, "--model.backbone.dropout=0"], capsys)
    assert main([*command, "--model.replace_norms=true"]) == 0  # with its dropout


def test_images_of_another_size_end_in_one_error(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = [*command, "--model.backbone=lightning_meta.backbones.VisionTransformer", "--model.backbone.channels=3"]
    assert "cannot take inputs of shape (6, 3, 8, 8)" in refused(command, capsys)
