"""The mean of the outputs of several checkpoints."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_meta import checkpoint_file
from lightning_meta.algorithms import MAML
from lightning_meta.callbacks import Ensemble
from lightning_meta.cli import main
from lightning_meta.data import GlyphEpisodes
from lightning_meta.episode import InnerBatches
from lightning_meta.errors import MetaLearningError
from tests.cli.helpers import refused
from tests.cli.helpers import small as small_compiled
from tests.helpers import glyph_network


def small(tmp_path: Path, steps: int = 2) -> list[str]:
    return [*small_compiled(tmp_path, steps=steps), "--model.compile=false"]


@pytest.mark.slow
def test_a_fit_tests_the_best_checkpoint_and_then_all_members(tmp_path: Path) -> None:
    arguments = [*small(tmp_path, steps=6), "--ensemble=3"]
    assert main(["fit", *arguments]) == 0
    (folder,) = tmp_path.rglob("checkpoints")
    paths = sorted(folder.glob("best-*.ckpt"))
    assert len(paths) == 3
    entries = json.loads((folder / "results.json").read_text())
    assert [entry["members"] for entry in entries] == [1, 3]

    assert main(["test", *arguments, f"--ckpt_path={folder / 'last.ckpt'}"]) == 0
    again = json.loads((folder / "results.json").read_text())[-1]
    assert (again["checkpoint"], again["members"]) == ("last.ckpt", 3)
    assert again["metrics"] == entries[1]["metrics"]


@pytest.mark.slow
def test_outputs_are_the_mean_over_the_members(tmp_path: Path) -> None:
    assert main(["fit", *small(tmp_path, steps=4), "--ensemble=2"]) == 0
    members = [MAML.load_from_checkpoint(path, weights_only=True) for path in sorted(tmp_path.rglob("best-*.ckpt"))]
    data = GlyphEpisodes(ways=3, shots=2, train_classes=20, validation_classes=6, test_classes=6)
    data.connect(InnerBatches(), InnerBatches(2))
    episode = data.draw("test", torch.arange(2))
    alone = [member.all_predictions(episode) for member in members]
    own = {name: tensor.clone() for name, tensor in members[0].state_dict().items()}
    members[0].ensemble = [(member.meta_parameters(), member.carry.tree()) for member in members]
    for together, *parts in zip(members[0].all_predictions(episode), *alone, strict=True):
        assert not torch.equal(*parts)
        torch.testing.assert_close(together, sum(parts) / 2)
    torch.testing.assert_close(dict(members[0].state_dict()), own, rtol=0, atol=0)


@pytest.mark.parametrize(("mode", "best"), [("max", ["b", "c"]), ("min", ["a", "c"])])
def test_the_members_are_the_best_by_their_validation(mode: str, best: list[str], tmp_path: Path) -> None:
    callback = ModelCheckpoint(monitor="val_loss", mode=mode)
    scores = {f"elsewhere/{name}": torch.tensor(score) for name, score in {"a": 0.1, "b": 0.9, "c": 0.5}.items()}
    states = {callback.state_key: {"best_k_models": scores}}
    saved: dict[str, Any] = {"callbacks": states, "state_dict": {}, "pytorch-lightning_version": "2.6"}
    torch.save(saved, tmp_path / "last.ckpt")
    trainer: Any = SimpleNamespace(ckpt_path=str(tmp_path / "b"), checkpoint_callback=callback)
    assert Ensemble(2)._paths(trainer) == [tmp_path / name for name in best]


@pytest.mark.slow
def test_a_member_that_is_gone_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *small(tmp_path, steps=4), "--ensemble=2"]) == 0
    gone, *_ = tmp_path.rglob("best-*.ckpt")
    gone.unlink()
    (last,) = tmp_path.rglob("last.ckpt")
    said = refused(["test", *small(tmp_path), "--ensemble=2", f"--ckpt_path={last}"], capsys)
    assert f"the ensemble: {gone} cannot be read as a checkpoint: there is no such file" in said


@pytest.mark.slow
def test_a_run_that_kept_too_few_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *small(tmp_path)]) == 0
    (last,) = tmp_path.rglob("last.ckpt")
    said = refused(["test", *small(tmp_path), "--ensemble=2", f"--ckpt_path={last}"], capsys)
    assert "ensemble is 2, but the run" in said
    assert "kept 1 checkpoints" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("--ensemble=0", "ensemble is 0, expected"),
        ("--checkpoint.monitor=null", "ensemble is 2, but checkpoint.monitor is null"),
    ],
)
def test_ensembles_of_nothing_are_refused(
    change: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(["fit", *small(tmp_path), "--ensemble=2", change], capsys)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_member_with_a_changed_byte_is_refused(which: str, tmp_path: Path) -> None:
    callback = ModelCheckpoint(monitor="val_loss", mode="max")
    states = {callback.state_key: {"best_k_models": {"best.ckpt": torch.tensor(0.5)}}}
    saved: dict[str, Any] = {"callbacks": states, "state_dict": {}, "pytorch-lightning_version": "2.6"}
    for name in ("best", "last"):
        checkpoint_file.write(saved, tmp_path / f"{name}.ckpt")
    path = tmp_path / f"{which}.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    trainer: Any = SimpleNamespace(ckpt_path=str(tmp_path / "best.ckpt"), checkpoint_callback=callback)
    with pytest.raises(MetaLearningError, match=f"the ensemble: .*{which}.ckpt cannot be read .* bytes have changed"):
        Ensemble(1).on_test_start(trainer, MAML(glyph_network()))
