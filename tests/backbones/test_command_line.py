"""Every backbone, and networks of other libraries, through the command line by their class paths."""

import inspect
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_meta import backbones
from lightning_meta.algorithms import MAML
from lightning_meta.cli import main
from tests.cli.helpers import SHORT_RUN, refused

WAYS, SIZE = 3, 8
SMALL: dict[str, dict[str, Any]] = {  # settings that make a network small
    "MLP": {"inputs": 3 * SIZE * SIZE, "hidden": [8]},
    "Conv4": {"channels": 3, "filters": 4},
    "LSTM": {"inputs": SIZE, "hidden": 4},
    "GRU": {"inputs": SIZE, "hidden": 4},
    "Pretrained": {"network": f"{__name__}.convolutions"},
    "ResNet12": {"filters": [4, 4, 4], "channels": 3},
    "WideResNet": {"depth": 10, "width": 1},
    "VisionTransformer": {"channels": 3, "image_size": SIZE, "patch_size": 4, "layers": 1, "heads": 2, "width": 8},
}


def convolutions(classes: int = 10) -> nn.Module:
    """As a function of torchvision makes a network."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


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


def test_a_checkpoint_needs_no_file_of_weights(command: list[str], tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(convolutions().state_dict(), weights)
    arguments = ["--model.backbone=Pretrained", f"--model.backbone.network={__name__}.convolutions"]
    assert main([*command, *arguments, f"--model.backbone.weights={weights}", "--model.backbone.frozen=true"]) == 0
    weights.unlink()
    (checkpoint,) = tmp_path.rglob("best*.ckpt")
    loaded = MAML.load_from_checkpoint(checkpoint, weights_only=True).backbone
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert torch.equal(loaded.network[1].running_mean, saved["backbone.network.1.running_mean"])


def test_networks_of_torchvision_are_named_by_their_functions(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", offline)
    network = "--model.backbone=torchvision.models.resnet18"
    assert "Set model.replace_norms" in refused([*command, network, f"--model.backbone.num_classes={WAYS}"], capsys)
    error = refused([*command, network, "--model.backbone.weights=IMAGENET1K_V1"], capsys)
    assert "cannot be downloaded" in error
    assert "--model.backbone Pretrained" in error
    assert "did you mean model.backbone.width_per_group" in refused(
        [*command, network, "--model.backbone.width_per_grop=3"], capsys
    )


def offline(*_: Any, **__: Any) -> None:
    raise URLError("Name or service not known")
