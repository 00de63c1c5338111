"""Every configuration runs, and says at its head what a person wants to know."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from lightning_meta.cli import main
from lightning_meta.data import cifarfs
from lightning_meta.report.published import read_lengths, read_published
from lightning_meta.sweep import read_sweep
from tests.data import rgb_files
from tests.test_cli import SHORT_RUN, adapts

FOLDER = Path(__file__).parents[1] / "configs"
SWEEPS = sorted(FOLDER.joinpath("sweeps").glob("*.yaml"))
CONFIGS = [path for path in sorted(FOLDER.rglob("*.yaml")) if path not in SWEEPS]
PUBLISHED = read_published()
RGB = ("cifarfs", "fc100", "mini_imagenet", "tiered_imagenet")
SMALL = ["--trainer.max_steps=1", "--trainer.val_check_interval=1", "--model.compile=false", "--model.task_chunk=1"]
SMALL += ["--data.meta_batch_size=2", "--data.validation_tasks=2"]
SMALL += ["--data.test_tasks=2", "--trainer.logger=false", *SHORT_RUN]
SMALL_IMAGES = ["--data.ways=2", "--data.shots=1", "--data.train_shots=1", "--data.queries=1", "--data.train_queries=1"]


def name(path: Path) -> str:
    return str(path.relative_to(FOLDER).with_suffix(""))


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


def place(folder: str, request: pytest.FixtureRequest) -> list[str]:
    """Where the data of a configuration of this folder are, and small tasks of them."""
    if folder == "arrays":
        return request.getfixturevalue("array_files")
    if folder == "navigation":
        return ["--data.trajectories=3", "--data.horizon=5"]
    if folder not in ("omniglot", *RGB):
        return []
    if folder in RGB:
        request.getfixturevalue("monkeypatch").setattr(cifarfs, "IMAGES", 4)
    root = request.getfixturevalue("rgb_root" if folder in RGB else "omniglot_root")
    return [f"--data.root={root}", f"--data.cache_dir={request.getfixturevalue('caches')}", *SMALL_IMAGES]


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_every_configuration_runs(config: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    arguments = [*SMALL, f"--trainer.default_root_dir={tmp_path}", *place(config.parent.name, request)]
    if adapts(yaml.safe_load(config.read_text())["model"]["class_path"]):
        arguments.append("--model.inner.evaluation_steps=1")
    if config.stem == "mnist":
        arguments += [f"--data.root={request.getfixturevalue('mnist_root')}", *SMALL_IMAGES]
    command = ["fit", f"--config={config}", *arguments]
    if yaml.safe_load(config.read_text())["trainer"].get("devices", 1) == 1:
        assert main(command) == 0
    else:  # workers start the program anew, which would be the tests
        subprocess.run([sys.executable, "-m", "lightning_meta", *command], check=True, timeout=200)
    assert len(list(tmp_path.rglob("results.json"))) == 1


@pytest.mark.parametrize("config", [path for path in CONFIGS if path.parent != FOLDER], ids=name)
def test_heads_say_source_figure_and_reduction(config: Path) -> None:
    text = config.read_text()
    head = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    assert yaml.safe_load(text)["experiment"] == name(config)
    assert "Inner loss: " in head
    assert "Outer loss: " in head or "Outer step: " in head
    assert re.search(r"Published: \S", head)
    assert re.search(r"Ours: \S", head)
    figure = re.search(r"Published: ([\d.]+) ± ([\d.]+)", head)
    published = PUBLISHED.get(name(config))
    assert (published and (published.mean, published.half_width)) == (figure and tuple(map(float, figure.groups())))


def test_every_configuration_has_the_length_of_its_source() -> None:
    """And every published figure has a configuration."""
    lengths = {experiment: figure.meta_steps for experiment, figure in PUBLISHED.items()}
    lengths |= {
        experiment: steps for experiment, steps in read_lengths().items() if not experiment.startswith("figure3")
    }
    ours = {"quickstart", "arrays/maml_5w1s"}  # whose length no source at hand says
    ours |= {"omniglot/soulier_5w1s_maml", "omniglot/soulier_5w1s_dmaml"}
    planned = {name(path): yaml.safe_load(path.read_text())["trainer"]["max_steps"] for path in CONFIGS}
    assert planned.keys() - lengths.keys() == ours
    assert {experiment: planned.get(experiment) for experiment in lengths} == lengths


@pytest.mark.parametrize("sweep", SWEEPS, ids=name)
def test_every_sweep_has_runs_that_the_command_line_takes(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER.parent)
    settings = [f"--config={CONFIGS[0]}"] if sweep.stem == "shots_at_test" else []  # of whatever learner a person has
    for run in read_sweep(sweep, settings):
        with pytest.raises(SystemExit) as exit_:
            main([*run, "--print_config"])
        assert exit_.value.code == 0


def test_heads_say_what_the_committed_runs_came_to() -> None:
    with (FOLDER.parent / "docs" / "report" / "table.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["members"] == "1"]
    assert rows
    for row in rows:
        head = FOLDER.joinpath(f"{row['experiment']}.yaml").read_text().partition("\nexperiment:")[0]
        text = " ".join(head.replace("\n#", "").split())
        for protocol in ("transductive", "nontransductive"):
            figure = f"{float(row[protocol]):.2f} ± {float(row[f'{protocol}_half_width_95']):.2f}"
            assert figure in text, (row["experiment"], figure)
        assert f"{int(row['meta_steps']):,} meta-steps" in text
