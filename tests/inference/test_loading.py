"""Learners from files, and what no file may do."""

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_meta import algorithms, checkpoint_file
from lightning_meta.cli import main
from lightning_meta.errors import MetaLearningError
from lightning_meta.inference import load_learner, pretrained, save_learner
from tests.cli.helpers import small
from tests.helpers import glyphs

NAME = "omniglot_maml_5w1s"


@pytest.fixture(scope="module", params=["MAML", "Reptile", "PrototypicalNetworks", "NearestNeighbour", "MAMLPlusPlus"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a short run."""
    folder = tmp_path_factory.mktemp(request.param)
    assert main(["fit", *small(folder, request.param), "--data.test_tasks=0", "--model.compile=false"]) == 0
    return folder / "experiment" / "version_0" / "checkpoints" / "last.ckpt"


@pytest.mark.slow
def test_a_checkpoint_names_its_method_and_how_pictures_become_inputs(checkpoint: Path, tmp_path: Path) -> None:
    learner = load_learner(checkpoint)
    kind = getattr(algorithms, checkpoint.parents[3].name.rstrip("0123456789"))
    assert type(learner) is kind
    assert not learner.training
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    torch.testing.assert_close(dict(learner.state_dict()), dict(saved))
    assert learner.trained_on == {
        "data": "GlyphEpisodes", "ways": 3, "shots": 2, "rows": 6, "inputs": [1, 28, 28],
        "preprocessing": glyphs().preprocessing.plain(),
    }  # fmt: skip

    save_learner(learner, tmp_path / "a.safetensors", title="a")
    again = load_learner(tmp_path / "a.safetensors")
    torch.testing.assert_close(dict(again.state_dict()), dict(saved))
    assert (again.hparams, again.trained_on, again.meta_steps) == (learner.hparams, learner.trained_on, 2)


def test_shipped_checkpoints_are_small_and_hold_no_pickle() -> None:
    assert NAME in pretrained()
    for name, path in pretrained().items():
        assert path.stat().st_size <= 500_000
        assert load_learner(name).meta_steps > 0


@pytest.mark.parametrize("name", ["omniglot_mamml_5w1s", "/nowhere/a.ckpt"])
def test_a_name_that_does_not_exist(name: str) -> None:
    with pytest.raises(MetaLearningError, match=f"neither a file nor the name.*{NAME}"):
        load_learner(name)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_runs_only_where_it_is_trusted(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": {}, "evil": Evil(tmp_path / "ran")}, tmp_path / "a.ckpt")
    with pytest.raises(MetaLearningError, match="only if you trust who made it: trust=True, or --trust"):
        load_learner(tmp_path / "a.ckpt")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(MetaLearningError, match="does not say of which method"):
        load_learner(tmp_path / "a.ckpt", trust=True)
    assert (tmp_path / "ran").exists()


def rewritten(path: Path, changes: dict[str, Any]) -> Path:
    """The shipped checkpoint with another description."""
    about = json.loads(_header(pretrained()[NAME])["lightning_meta"])
    save_file(load_file(pretrained()[NAME]), path, {"lightning_meta": json.dumps(about | changes)})
    return path


def _header(path: Path) -> dict[str, str]:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header: dict[str, str] = json.loads(stream.read(length))["__metadata__"]
    return header


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method": "subprocess.Popen"},
            "names subprocess.Popen, which is not a building block of this package or of PyTorch",
        ),
        ({"method": "lightning_meta.algorithms.Nothing"}, "cannot be imported"),
        ({"method": "torch.nn.Linear"}, "is not a MetaLearner"),
        ({"hyper_parameters": {"backbone": {"class_path": "os.system", "init_args": {}}}}, "names os.system"),
        ({"hyper_parameters": {"loss": "shutil.rmtree"}}, "names shutil.rmtree"),
        ({"hyper_parameters": {"loss": "torch.hub.load"}}, "names torch.hub.load, which is not a building block"),
        ({"hyper_parameters": {"loss": "lightning_meta.inner.../a"}}, "names lightning_meta.inner.../a"),
        ({"method": 3}, "method is 3, expected the import path"),
        ({"meta_steps": None}, "meta_steps is None, expected a number of"),
        ({"hyper_parameters": [1]}, "hyper_parameters is .1., expected settings"),
        ({"preprocessing": "grey"}, "preprocessing is 'grey'"),
        *(({"meta_steps": value}, "meta_steps is ") for value in (-5, 2**70, True, 1.5)),
        *(({"minutes": value}, "minutes is ") for value in (-1, 10**400, math.inf, math.nan, "7", True)),
        *(({"inputs": value}, "inputs is ") for value in (7, "abc", [1, "28", 28])),
        ({"hyper_parameters": {"inner": json.loads('{"a":' * 900 + "1" + "}" * 900)}}, "hyper_parameters is "),
        ({"preprocessing": {"side": "x", "channels": 1}}, "side x"),
        ({"preprocessing": {"side": 10**9, "channels": 1}}, "expected 1 to 4096 pixels"),
        ({"preprocessing": {"side": 28, "channels": 1, "mean": 0.5}}, "mean is 0.5"),
        ({"preprocessing": {"side": 28, "channels": 1, "background": "x"}}, "background is 'x'"),
        ({"preprocessing": {"side": 28, "channels": 1, "resample": "x"}}, "resample is 'x'"),
        ({"hyper_parameters": {"backbone": {"class_path": "lightning_meta.backbones.Conv4"}}}, "cannot be rebuilt"),
        ({"hyper_parameters": {"nothing": 1}}, "cannot be rebuilt as MAML"),
    ],
)
def test_a_description_builds_only_what_is_of_this_package(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(MetaLearningError, match=message):
        load_learner(rewritten(tmp_path / "a.safetensors", changes))


@pytest.mark.parametrize(
    "path", ["torch.os.system", "torch.hub.os.popen", r"torch\x2eos\x2esystem", "lightning_meta.cli.main"]
)
@pytest.mark.parametrize("written", [dict, json.dumps])
@pytest.mark.parametrize("setting", ["optimizer", "loss", "lr_scheduler"])
def test_a_description_runs_nothing(tmp_path: Path, setting: str, written: Any, path: str) -> None:
    """Import paths are followed through attributes, and strings are read as YAML, by what builds the settings."""
    about = json.loads(_header(pretrained()[NAME])["lightning_meta"])
    built = {"class_path": path, "init_args": {"command": f"touch {tmp_path / 'ran'}"}}
    settings = about["hyper_parameters"] | {
        setting: written(built).replace("\\\\", "\\") if written is json.dumps else built
    }
    with pytest.raises(MetaLearningError, match="names "):
        load_learner(rewritten(tmp_path / "a.safetensors", {"hyper_parameters": settings}))
    assert not (tmp_path / "ran").exists()


def test_a_setting_is_not_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil").write_text(
        f"optimizer: {{class_path: torch.os.system, init_args: {{command: touch {tmp_path / 'ran'}}}}}"
    )
    about = json.loads(_header(pretrained()[NAME])["lightning_meta"])
    with pytest.raises(MetaLearningError, match="names evil"):
        load_learner(
            rewritten(tmp_path / "a.safetensors", {"hyper_parameters": about["hyper_parameters"] | {"inner": "evil"}})
        )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["[1]", "null", '"a"', "[" * 100_000])
def test_a_description_of_another_form(tmp_path: Path, text: str) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", {"lightning_meta": text})
    with pytest.raises(MetaLearningError, match="damaged"):
        load_learner(tmp_path / "a.safetensors")


def test_the_instantiator_of_a_file_is_not_called(tmp_path: Path) -> None:
    about = json.loads(_header(pretrained()[NAME])["lightning_meta"])
    settings = about["hyper_parameters"] | {"_instantiator": "shutil.rmtree"}
    assert load_learner(rewritten(tmp_path / "a.safetensors", {"hyper_parameters": settings})).meta_steps > 0


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100, pickle.dumps([1, 2])])
@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_damaged_files(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(MetaLearningError, match=r"a\.\w+"):
        load_learner(path)


@pytest.mark.parametrize("trust", [False, True])
def test_a_changed_byte_is_refused(trust: bool, tmp_path: Path) -> None:
    saved = {"state_dict": {"weight": torch.ones(100)}, "hyper_parameters": {}}
    checkpoint_file.write(saved, tmp_path / "a.ckpt")
    content = bytearray((tmp_path / "a.ckpt").read_bytes())
    content[content.index(torch.ones(100).numpy().tobytes()) + 5] ^= 1
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(MetaLearningError, match="a.ckpt cannot be read as a checkpoint: .* bytes have changed"):
        load_learner(tmp_path / "a.ckpt", trust=trust)


def test_a_learner_of_objects_cannot_be_written(tmp_path: Path) -> None:
    learner = algorithms.MAML(torch.nn.Linear(2, 2))
    with pytest.raises(MetaLearningError, match="backbone of the learner cannot be written down"):
        save_learner(learner, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
