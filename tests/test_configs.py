"""Every configuration runs, says where it is from, and has an entry in the data file of published figures."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lightning_meta import data
from lightning_meta.cli import main
from lightning_meta.cli.sweep import plan, read_sweep
from lightning_meta.data import ClassImages, EpisodeDataModule, OmniglotEpisodes, cifarfs
from lightning_meta.data.files.image_cache import CACHE_FOLDER
from lightning_meta.data.leaks import Finding, find_leaks
from lightning_meta.report.published import read_configurations
from tests.cli.helpers import SHORT_RUN, adapts
from tests.data import rgb_files

FOLDER = Path(__file__).parents[1] / "configs"
SWEEPS = sorted(FOLDER.joinpath("sweeps").glob("*.yaml"))
CONFIGS = [path for path in sorted(FOLDER.rglob("*.yaml")) if path not in SWEEPS]
OF_SOURCES = [path for path in CONFIGS if path.parent != FOLDER]
KNOWN = read_configurations()
STATED = {
    r"omniglot/openai_o[15]5t?|mini_imagenet/openai_m[15]5t?": 100_000,
    r"omniglot/openai_o[15]20t?": 200_000,
    r"omniglot/finn_(5|20)w[15]s_maml(_noconv)?|mini_imagenet/finn_5w[15]s_(fo)?maml": 60_000,
    r"sinusoid/finn_10shot_maml": 70_000,
    r"sinusoid/openai_10shot_reptile": 30_000,
    r"figure3/\w+|omniglot/openai_combination": 40_000,
    r"omniglot/keras_reptile_5w[15]s": 2000,
    r"navigation/finn_maml": 500,
    r"learned_optimizer/\w+": 10_000 * 100 // 20,
}
RGB = ("cifarfs", "fc100", "mini_imagenet", "tiered_imagenet")
SMALL = ["--trainer.max_steps=1", "--trainer.val_check_interval=1", "--model.compile=false", "--model.task_chunk=1"]
SMALL += ["--data.meta_batch_size=2", "--data.validation_tasks=2"]
SMALL += ["--data.test_tasks=2", "--trainer.logger=false", *SHORT_RUN]
SMALL_IMAGES = ["--data.ways=2", "--data.shots=1", "--data.train_shots=1", "--data.queries=1", "--data.train_queries=1"]


def name(path: Path) -> str:
    return str(path.relative_to(FOLDER).with_suffix(""))


def head(experiment: str) -> str:
    """The comment that a configuration begins with, in one line."""
    comment = FOLDER.joinpath(f"{experiment}.yaml").read_text().partition("\nexperiment:")[0]
    return " ".join(line.removeprefix("# ") for line in comment.splitlines())


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all configurations of a session."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="session")
def rgb_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files of all colour data sets, two classes a split."""
    root = tmp_path_factory.mktemp("rgb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rgb_files, "CLASSES", dict.fromkeys(rgb_files.CLASSES, 2))
        patch.setattr(rgb_files, "EACH", 4)
        for _, make, _ in rgb_files.KINDS.values():
            make(root)
    return root


@pytest.fixture(scope="session")
def array_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Vectors of six classes, and small tasks of them."""
    root = tmp_path_factory.mktemp("arrays")
    np.save(root / "x.npy", np.random.default_rng(0).random((12, 49)))
    np.save(root / "y.npy", np.arange(6).repeat(2))
    arguments = [f"--data.{name}={root / name}.npy" for name in ("x", "y")]
    return [*arguments, "--data.validation_classes=2", "--data.test_classes=2", *SMALL_IMAGES]


@pytest.fixture(scope="session")
def picture_folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Pictures of six classes, and small tasks of them."""
    root = tmp_path_factory.mktemp("pictures")
    for green, split in enumerate(("train", "val", "test")):
        for number in range(2):
            folder = root / split / f"{split}{number}"
            folder.mkdir(parents=True)
            for shade in (100, 200):
                Image.new("RGB", (8, 8), (shade, 50 * green, 50 * number)).save(folder / f"{shade}.png")
    return [f"--data.root={root}", *SMALL_IMAGES]


def place(folder: str, request: pytest.FixtureRequest) -> list[str]:
    """Where the data of a configuration of this folder are, and small tasks of them."""
    if folder == "arrays":
        return request.getfixturevalue("array_files")
    if folder == "folders":
        return request.getfixturevalue("picture_folders")
    if folder == "navigation":
        return ["--data.trajectories=3", "--data.horizon=5"]
    if folder not in ("omniglot", *RGB):
        return []
    if folder in RGB:
        request.getfixturevalue("monkeypatch").setattr(cifarfs, "IMAGES", 4)
    root = request.getfixturevalue("rgb_root" if folder in RGB else "omniglot_root")
    return [f"--data.root={root}", f"--data.cache_dir={request.getfixturevalue('caches')}", *SMALL_IMAGES]


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_every_configuration_runs(config: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = "omniglot" if config.stem.startswith("omniglot_") else config.parent.name  # of the recipes
    arguments = [*SMALL, f"--trainer.default_root_dir={tmp_path}", *place(folder, request)]
    if adapts(yaml.safe_load(config.read_text())["model"]["class_path"]):
        arguments.append("--model.inner.evaluation_steps=1")
    if config.stem == "mnist":
        root = request.getfixturevalue("mnist_root")
        arguments += [f"--data.root={root}", "--data.check_files=false", *SMALL_IMAGES]
    command = ["fit", f"--config={config}", *arguments]
    if yaml.safe_load(config.read_text())["trainer"].get("devices", 1) == 1:
        assert main(command) == 0
    else:  # workers restart the program, which would be pytest
        subprocess.run([sys.executable, "-m", "lightning_meta", *command], check=True, timeout=200)
    assert len(list(tmp_path.rglob("results.json"))) == 1


@pytest.fixture(scope="session")
def compared() -> dict[str, list[Finding]]:
    """What was found in the data of earlier configurations, many of which have the same."""
    return {}


@pytest.fixture
def loaded_once(monkeypatch: pytest.MonkeyPatch, loaded: dict[Any, ClassImages]) -> None:
    """The same drawings for all configurations that have them, since looking at 32,460 files takes its time."""
    load = OmniglotEpisodes.load

    def load_once(self: OmniglotEpisodes) -> ClassImages:
        key = self.split, self.rendering
        if key not in loaded:
            loaded[key] = load(self)
        return loaded[key]

    monkeypatch.setattr(OmniglotEpisodes, "load", load_once)


@pytest.fixture(scope="session")
def loaded() -> dict[Any, ClassImages]:
    """Drawings by their split and rendering."""
    return {}


def data_of(config: Path, request: pytest.FixtureRequest) -> EpisodeDataModule:
    """The data module of a configuration, with the sizes of its tasks where the files that are here allow it."""
    section = yaml.safe_load(config.read_text())["data"]
    folder = "omniglot" if config.stem.startswith("omniglot_") else config.parent.name
    kind: type[EpisodeDataModule] = getattr(data, section["class_path"])
    if config.stem == "mnist":
        return kind(root=str(request.getfixturevalue("mnist_root")), check_files=False, **section["init_args"])
    arguments = [argument for argument in place(folder, request) if folder != "omniglot" or "data.ro" in argument]
    if folder == "omniglot" and not (Path(arguments[0].partition("=")[2]) / CACHE_FOLDER).is_dir():
        arguments.append(f"--data.cache_dir={request.getfixturevalue('caches')}")
    changes = {key.removeprefix("--data."): value for key, value in (text.split("=") for text in arguments)}
    numbers = {key: int(value) if value.isdigit() else value for key, value in changes.items()}
    settings: dict[str, Any] = section.get("init_args", {}) | numbers
    return kind(**settings)


@pytest.mark.slow
@pytest.mark.usefixtures("loaded_once")
@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_no_configuration_leaks(
    config: Path, request: pytest.FixtureRequest, compared: dict[str, list[Finding]]
) -> None:
    key = repr(yaml.safe_load(config.read_text())["data"])
    if key not in compared:
        compared[key] = find_leaks(data_of(config, request), tasks=10)
    assert compared[key]
    assert [finding for finding in compared[key] if finding.leaks] == []


@pytest.mark.parametrize("config", OF_SOURCES, ids=name)
def test_heads_say_source_and_reduction_and_no_result(config: Path) -> None:
    said, known = head(name(config)), KNOWN[name(config)]
    assert yaml.safe_load(config.read_text())["experiment"] == name(config)
    assert re.findall(r"(Inner loss|Outer loss|Outer step): \S", said) in (
        ["Inner loss", "Outer loss"], ["Inner loss", "Outer step"],
    )  # fmt: skip
    if known.source:
        assert (known.source.arxiv or known.source.authors.split()[0].strip(",")) in said
    assert ("Meta-steps: our choice" in said) == (not known.meta_steps_stated)
    assert not re.search(r"\d ± \d|Published|Ours|minutes", said)


def test_every_configuration_is_known_and_every_known_one_exists() -> None:
    runs = {argument for path in SWEEPS for run in read_sweep(str(path)).runs for argument in run}
    swept = {key for key in KNOWN if f"--experiment={key}" in runs}
    assert swept == {key for key in KNOWN if key.startswith("figure3/")}
    assert KNOWN.keys() - swept == {name(path) for path in CONFIGS}


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_lengths_and_tasks_are_those_of_the_file(config: Path) -> None:
    known, content = KNOWN[name(config)], yaml.safe_load(config.read_text())
    assert known.meta_steps == content["trainer"]["max_steps"]
    if known.published:
        tasks = content["data"]["init_args"]
        assert (known.published.ways, known.published.shots) == (tasks["ways"], tasks["shots"])


def test_lengths_are_called_stated_where_the_sources_state_them() -> None:
    """As the sources' tables, figures and code give them, and MAML's appendix for all of its classifiers."""
    for key, known in KNOWN.items():
        stated = [steps for pattern, steps in STATED.items() if re.fullmatch(pattern, key)]
        assert stated == [known.meta_steps] * known.meta_steps_stated, key


@pytest.mark.parametrize("sweep", SWEEPS, ids=name)
def test_every_sweep_has_runs_that_the_command_line_takes(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER.parent)
    settings = [f"--config={CONFIGS[0]}"] if sweep.stem == "shots_at_test" else []  # of whatever learner a person has
    assert len(plan(read_sweep(str(sweep), settings))) > 1
