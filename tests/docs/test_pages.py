"""The examples on the pages are run as they stand there."""

import csv
import math
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageDraw
from pytorch_lightning import Trainer

from lightning_meta import MAML, MLP, TRPOMAML, Conv4, GaussianPolicy, GlyphEpisodes, InnerLoop, MetaLearner
from lightning_meta.cli import main
from lightning_meta.inner import SGD
from tests.docs.pages import PAGES, ROOT, block, blocks, run_block

ALGORITHM, DATA, ENVIRONMENT, START = "docs/algorithm.md", "docs/data.md", "docs/environment.md", "docs/start.md"
USE = "docs/use.md"
SHORT = ["--trainer.max_steps=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
SHORT += ["--trainer.log_every_n_steps=1"]
FEW_GLYPHS = ["--data.train_classes=10", "--data.validation_tasks=0", "--data.test_classes=10", "--data.test_tasks=2"]


def commands(page: Path) -> list[list[str]]:
    """What a page has the command line do."""
    found = []
    for text in blocks(str(page.relative_to(ROOT)), "bash") if "```bash" in page.read_text() else []:
        lines = text.replace("\\\n", " ").splitlines()
        found += [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("lightning-meta ")]
    return found


def run_command(page: str, part: str, changes: list[str]) -> str:
    """Run the one command of a page with ``part``, with changes, as a person does; returns what it prints."""
    (arguments,) = [command for command in commands(ROOT / page) if part in " ".join(command)]
    run = subprocess.run(
        [sys.executable, "-m", "lightning_meta", *arguments, *changes], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def trainer(steps: int) -> Trainer:
    return Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, limit_val_batches=0,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the examples in files, as the pages say."""
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("taml.py").write_text(block(ALGORITHM, "python", "class TAML"))
    tmp_path.joinpath("curvature.py").write_text(block(ALGORITHM, "python", "class MetaCurvature"))
    tmp_path.joinpath("lines.py").write_text(block(DATA, "python", "class LineFits"))
    tmp_path.joinpath("line.py").write_text(block(ENVIRONMENT, "python", "class Line("))
    return tmp_path


@pytest.mark.slow
def test_the_algorithm_learns(folder: Path) -> None:
    learner = runpy.run_path("taml.py", run_name="__main__")["learner"]
    accuracy, loss = learner.scores.intervals["query_accuracy"], learner.scores.intervals["query_loss"]
    assert learner.meta_steps == 60
    assert accuracy.tasks == 100
    assert accuracy.mean[-1] > 0.5  # one in five by chance
    assert loss.mean[0] == pytest.approx(math.log(5), abs=0.1)  # undecided before adaptation


def test_the_algorithm_is_known_to_the_command_line_by_its_class_path(folder: Path) -> None:
    changes = [*SHORT, *FEW_GLYPHS, "--model.compile=false", "--model.backbone.filters=4"]
    assert "over 2 tasks" in run_command(ALGORITHM, "taml.TAML", [*changes, "--model.inner.evaluation_steps=1"])
    (config,) = folder.rglob("config.yaml")
    assert yaml.safe_load(config.read_text())["model"]["class_path"] == "taml.TAML"


@pytest.mark.parametrize(("name", "moves"), [("ZeroedHeadMAML", "2.weight"), ("WeightedMAML", "weighting.1.weight")])
def test_the_other_algorithms_learn_what_they_say(name: str, moves: str) -> None:
    torch.manual_seed(0)
    kind = getattr(run_block(ALGORITHM, f"class {name}"), name)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 8), torch.nn.Linear(8, 5))
    learner: MetaLearner = kind(network, InnerLoop(SGD(0.4), evaluation_steps=1))
    data = GlyphEpisodes(
        shots=2, train_classes=20, validation_classes=0, test_classes=10, validation_tasks=0, test_tasks=4,
        meta_batch_size=4,
    )  # fmt: skip
    before = {key: value.clone() for key, value in learner.meta_parameters().items()}
    trainer(2).fit(learner, data)
    changed = {key for key, value in learner.meta_parameters().items() if not torch.equal(value, before[key])}
    if name == "ZeroedHeadMAML":
        assert changed == {"backbone.1.weight", "backbone.1.bias"}
    else:
        assert moves in changed


def test_a_term_is_logged_as_the_page_says(folder: Path) -> None:
    taml = run_block(ALGORITHM, "class TAML")
    names = {"torch": torch}
    source = block(ALGORITHM, "python", "def log_training").replace("super()", "super(type(self), self)")
    exec(source, names)
    kind = type("Logging", (taml.TAML,), {"log_training": names["log_training"]})
    learner, run = kind(MLP(outputs=5, inputs=784), InnerLoop(SGD(0.4), evaluation_steps=1), compile=False), trainer(1)
    run.fit(learner, GlyphEpisodes(train_classes=20, test_classes=10, test_tasks=4, meta_batch_size=4))
    assert run.logged_metrics["train/initial_entropy"] == pytest.approx(math.log(5), abs=0.1)


def test_the_inner_rule_learns_its_matrices(folder: Path) -> None:
    rule = run_block(ALGORITHM, "class MetaCurvature").MetaCurvature
    learner = MAML(MLP(outputs=5, inputs=784, hidden=(8,)), InnerLoop(rule(lr=0.1), evaluation_steps=1), compile=False)
    before = {name: value.clone() for name, value in learner.inner_parameters.items()}
    trainer(2).fit(learner, GlyphEpisodes(train_classes=20, test_classes=10, test_tasks=4, meta_batch_size=4))
    assert len(before) == 4
    assert not any(torch.equal(value, before[name]) for name, value in learner.inner_parameters.items())


@pytest.mark.slow
def test_the_environment_is_learned(folder: Path) -> None:
    line = run_block(ENVIRONMENT, "class Line(", "line")
    policy, inner = GaussianPolicy(outputs=1, inputs=1, hidden=(16,)), InnerLoop(SGD(0.1), evaluation_steps=1)
    learner = TRPOMAML(policy, inner, environment=line.Line(), task_chunk=8)
    data = line.LineEpisodes(trajectories=10, horizon=10, meta_batch_size=8, test_tasks=40)
    run = trainer(12)
    run.fit(learner, data)
    run.test(learner, data, verbose=False)
    before, after = learner.scores.intervals["query_loss"].mean
    assert before > 1.5  # ten steps of 0.25, the mean distance of a goal, or farther
    assert after < 0.8 * before


@pytest.mark.slow
def test_the_environment_is_known_to_the_command_line_by_its_class_path(folder: Path) -> None:
    small = ["--data.trajectories=3", "--data.horizon=5", "--data.meta_batch_size=2", "--data.test_tasks=2"]
    assert "over 2 tasks" in run_command(ENVIRONMENT, "line.Line ", [*SHORT, *small])
    (config,) = folder.rglob("config.yaml")
    environment = yaml.safe_load(config.read_text())["model"]["init_args"]["environment"]
    assert environment["class_path"] == "line.Line"


def test_the_data_module_is_learned_from_and_a_task_is_the_same_alone(folder: Path) -> None:
    torch.manual_seed(0)
    lines = run_block(DATA, "class LineFits", "lines")
    data = lines.LineFits(test_tasks=50)
    inner, loss = InnerLoop(SGD(0.05), evaluation_steps=3), torch.nn.functional.mse_loss
    maml, run = MAML(MLP(outputs=1, inputs=1), inner, loss=loss), trainer(40)
    run.fit(maml, data)
    run.test(maml, data, verbose=False)
    before, *_, after = maml.scores.intervals["query_loss"].mean
    assert after < before
    together, alone = data.draw("train", torch.arange(3)), data.draw("train", torch.tensor([2]))
    assert torch.equal(together.support_x[2], alone.support_x[0])


@pytest.mark.slow
def test_the_data_module_is_known_to_the_command_line(folder: Path) -> None:
    small = ["--data.validation_tasks=2", "--data.test_tasks=2", "--trainer.val_check_interval=1"]
    assert "over 2 tasks" in run_command(DATA, "lines.LineFits", [*SHORT, *small])


@pytest.mark.slow
def test_the_arrays_command_takes_files(folder: Path) -> None:
    np.save("x.npy", np.random.default_rng(0).random((40, 49), dtype=np.float32))
    np.save("y.npy", np.arange(20).repeat(2))
    small = ["--data.validation_classes=5", "--data.test_classes=5", "--data.validation_tasks=2", "--data.test_tasks=2"]
    assert "over 2 tasks" in run_command(DATA, "--data.x", [*SHORT, *small, "--trainer.val_check_interval=1"])


def test_the_arrays_are_made_from_omniglot(folder: Path, omniglot_root: Path) -> None:
    (script,) = block(DATA, "bash", "<<'END'").split("<<'END'\n")[1:]
    exec(script.partition("\nEND")[0].replace('root="DATA"', f"root={str(omniglot_root)!r}"), {})
    assert np.load("x.npy").shape == (32460, 49)
    assert np.load("y.npy").shape == (32460,)


@pytest.mark.slow
def test_the_start_in_python_runs(folder: Path) -> None:
    script = block(START, "python", "MAML(Conv4")
    for whole, short in {"max_steps=400": "max_steps=2", "queries=3)": "queries=3, test_tasks=4)"}.items():
        assert whole in script
        script = script.replace(whole, short)
    names: dict[str, object] = {}
    exec(script.replace("GlyphEpisodes(ways", "GlyphEpisodes(train_classes=20, test_classes=10, ways"), names)
    assert isinstance(names["learner"].backbone, Conv4)


def test_other_networks_adapt_as_the_page_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_block(START, "Pretrained(5")
    assert capsys.readouterr().out.count("torch.Size([2, 5])") == 2


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_the_command_line_takes_every_command(
    page: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)  # as the installed command does by itself
    for command in commands(page):
        if command[0] in ("fit", "test", "predict", "validate"):
            config = [part for part in command if part.startswith("logs/") and part.endswith("config.yaml")]
            arguments = ["quickstart" if part in config else part for part in command]
            shows = any("help" in part or part == "--print_config" for part in arguments)
            assert main(arguments if shows else [*arguments, "--print_config"]) == 0, command
        elif command[0] == "list":
            assert main(command) == 0
        else:
            assert main([command[0], "--help"]) == 0
            assert command[0] in ("adapt", "check", "demo", "report", "sweep")
        assert capsys.readouterr().out


@pytest.mark.slow
def test_a_trained_learner_is_used_as_its_page_says(folder: Path) -> None:
    for name in ("circle", "square", "star"):
        Path("known", name).mkdir(parents=True)
        symbol(name, 0).save(f"known/{name}/1.png")
    Path("unknown").mkdir()
    symbol("star", 6).save("unknown/a.png")
    symbol("circle", 6).save("unknown/b.jpg")
    run_command(USE, "predictions.csv", ["--html=page.html"])
    estimator, module, session = blocks(USE, "python")
    names: dict[str, Any] = {}
    for script in (estimator, module, session):
        exec(script, names)
    with Path("predictions.csv").open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == ["star", "circle"]
    assert names["classifier"].predict("unknown").tolist() == ["star", "circle"]
    assert names["outputs"].argmax(1).tolist() == names["adapted"](names["pictures"]).argmax(1).tolist() == [2, 0]


def symbol(name: str, shift: int) -> Image.Image:
    """A drawing in black on white, somewhat to the right."""
    picture = Image.new("L", (105, 105), 255)
    pen, box = ImageDraw.Draw(picture), (20 + shift, 20, 80 + shift, 80)
    if name == "circle":
        pen.ellipse(box, outline=0, width=3)
    elif name == "square":
        pen.rectangle(box, outline=0, width=3)
    else:
        ends = [(50 + shift + 35 * math.sin(turn), 50 - 35 * math.cos(turn)) for turn in 0.8 * math.pi * np.arange(6)]
        pen.line(ends, 0, 3)
    return picture
