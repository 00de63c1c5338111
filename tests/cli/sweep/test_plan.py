"""What a sweep file asks for, and what is refused before the first run starts."""

import itertools
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_meta.cli import main
from lightning_meta.cli.sweep import plan, read_sweep
from lightning_meta.cli.sweep import queue as queue_module
from tests.cli.helpers import refused, small


def write(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Writes a sweep file of a small fit with these keys besides; returns its path."""

    def make(**keys: object) -> str:
        return write(tmp_path / "sweep.yaml", {"command": "fit", "arguments": small(tmp_path)} | keys)

    return make


def test_settings_stand_between_those_of_the_file_and_those_of_a_run(tmp_path: Path) -> None:
    """A configuration given by hand may not undo what makes the runs different, nor that of a run what is given."""
    runs = [["--b", "--config=x"], ["-c", "y", "--c"]]
    file = write(tmp_path / "sweep.yaml", {"command": "test", "arguments": ["--a"], "runs": runs})
    expected = [["test", "--a", "--config=x", "--d", "--b"], ["test", "--a", "-c", "y", "--d", "--c"]]
    assert read_sweep(file, ["--d"]).runs == expected


def test_a_grid_is_the_product_of_its_values_for_every_seed(tmp_path: Path) -> None:
    content = "{command: fit, seeds: [3, 1], runs: [[--r=1], [--r=2]], grid: {a.b: [1, 1e-3, null], c: [[0, 1], no]}}"
    expected = [
        ["fit", f"--r={run}", f"--a.b={first}", f"--c={second}", f"--seed_everything={seed}"]
        for seed, run, first, second in itertools.product((3, 1), (1, 2), (1, "1e-3", "null"), ("[0, 1]", "false"))
    ]
    assert read_sweep(write(tmp_path / "sweep.yaml", content)).runs == expected


def test_seeds_by_their_number(tmp_path: Path) -> None:
    file = write(tmp_path / "sweep.yaml", "{command: fit, seeds: 2}")
    assert read_sweep(file).runs == [["fit", "--seed_everything=0"], ["fit", "--seed_everything=1"]]


def test_every_run_has_a_name_of_its_own(file: Any) -> None:
    grid = plan(read_sweep(file(grid={"model.inner.steps": [1, 2], "model.inner.optimizer.lr": [0.4]}, seeds=2)))
    assert grid[1].label == "model.inner.steps=2,model.inner.optimizer.lr=0.4,seed=0"
    other = file(
        runs=[["--config=quickstart"], ["--config=omniglot/finn_5w1s_maml"], [f"--trainer.profiler={'x' * 200}"]]
    )
    runs = plan(read_sweep(other, ["--experiment=e"]))
    names = [run.label for run in (*grid, *runs)]
    assert len({*names}) == 7
    assert all(name.startswith("seed=0_") for name in names[4:6])
    assert all(len(name) < 150 and "/" not in name for name in names)


SEARCH: dict[str, Any] = {"parameters": {"model.optimizer.lr": {"low": 0.001, "high": 0.1}}}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"runs": []}, "runs is [], expected a list"),
        ({"runs": 3}, "runs is 3, expected a list"),
        ({"runs": ["--a=1"]}, "runs[0] is '--a=1', expected a list of arguments"),
        ({"runs": [["--a=1", ["--b"]]]}, "runs[0] is ['--a=1', ['--b']], expected a list of arguments"),
        ({"seeds": 1, "arguments": "--a"}, "arguments is '--a', expected a list"),
        ({"seeds": 1, "arguments": None}, "arguments is None, expected a list"),
        ({"seed": 3}, "seed belongs to no sweep: did you mean seeds?"),
        ({"trials": 3}, "trials belongs to no sweep: it may hold command"),
        ({"command": "fits", "seeds": 1}, "command is 'fits', expected one of fit, validate"),
        ({"command": ["fit"], "seeds": 1}, "command is ['fit'], expected one of fit"),
        ({}, "says of no run what it is: give runs, grid, seeds or search"),
        ({"grid": {"model.inner.steps": 3}}, "grid.model.inner.steps is 3, expected a list"),
        ({"grid": {"model.inner.steps": []}}, "grid.model.inner.steps is [], expected a list"),
        ({"grid": {}}, "grid is {}, expected settings with lists"),
        ({"grid": ["model.inner.steps"]}, "grid is ['model.inner.steps'], expected settings"),
        ({"grid": {"--model.inner.steps": [1]}}, "without dashes"),
        ({"seeds": 0}, "seeds is 0, expected how many"),
        ({"seeds": -1}, "seeds is -1, expected how many"),
        ({"seeds": True}, "seeds is True, expected how many"),
        ({"seeds": [0, 0]}, "seeds is [0, 0], expected how many"),
        ({"seeds": [0, -1]}, "seeds is [0, -1], expected how many"),
        ({"seeds": [0.5]}, "seeds is [0.5], expected how many"),
        ({"seeds": "three"}, "seeds is 'three', expected how many"),
        ({"seeds": 2, "runs": [["--seed_everything", "1"]]}, "gives seeds, and --seed_everything as well"),
        ({"search": SEARCH, "grid": {"a": [1]}}, "holds both search and grid"),
        ({"search": SEARCH, "seeds": 2}, "holds both search and seeds"),
        ({"search": SEARCH, "command": "test"}, "command is test, but a search has to fit"),
        ({"search": {}}, "search has no parameters"),
        ({"search": SEARCH | {"trial": 3}}, "search.trial does not exist"),
        ({"search": SEARCH | {"trials": 0}}, "search.trials is 0"),
        ({"search": SEARCH | {"trials": 1.5}}, "search.trials is 1.5"),
        ({"search": SEARCH | {"direction": "up"}}, "search.direction is 'up', expected maximize or minimize"),
        ({"search": SEARCH | {"pruner": "fast"}}, "search.pruner is 'fast', expected median or none"),
        ({"search": SEARCH | {"metric": "accuracy"}}, "search.metric is 'accuracy', expected what a validation logs"),
        ({"search": {"parameters": [1]}}, "search.parameters is [1], expected settings"),
        ({"search": {"parameters": {"--a": {"low": 1, "high": 2}}}}, "expected a setting without dashes"),
        ({"search": {"parameters": {"a": [1, 2]}}}, "search.parameters.a is [1, 2], expected {low"),
        ({"search": {"parameters": {"a": {"low": 1}}}}, "search.parameters.a is {'low': 1}, expected {low"),
        ({"search": {"parameters": {"a": {"low": 2, "high": 1}}}}, "numbers of which low is the smaller"),
        ({"search": {"parameters": {"a": {"low": "x", "high": 1}}}}, "numbers of which low is the smaller"),
        ({"search": {"parameters": {"a": {"low": 0, "high": 1, "log": True}}}}, "low above 0"),
        ({"search": {"parameters": {"a": {"choices": [1]}}}}, "search.parameters.a.choices is [1], expected a list"),
        ({"runs": [["--data.wayz=3"]]}, "data.wayz is not a setting of GlyphEpisodes: did you mean data.ways?"),
        ({"grid": {"model.inner.stepz": [1, 2]}}, "model.inner.stepz"),
        ({"grid": {"data.ways": [3, "three"]}}, "run 2 of "),
        ({"search": {"parameters": {"model.optimizer.rate": {"low": 0.1, "high": 1}}}}, "model.optimizer.rate"),
        ({"runs": [[], ["--data.ways=3"]]}, "runs 1 and 2 of "),
        ({"grid": {"data.ways": [3, 4, 3]}}, "runs 1 and 3 of "),
        ({"runs": [["--run=mine"]]}, "a sweep names its runs itself"),
        ({"runs": [["--checkpoint.dirpath=here"]]}, "checkpoint.dirpath is set"),
        ({"runs": [["--config=omniglot/none"]]}, "neither a file nor a shipped configuration"),
        (
            {"runs": [["--ckpt_path=none.ckpt"]]},
            "ckpt_path: none.ckpt cannot be read as a checkpoint: there is no such file",
        ),
        ({"runs": [["--help"]]}, "asks for help or for its settings"),
        ({"runs": [["--print_config"]]}, "asks for help or for its settings"),
    ],
)
def test_everything_wrong_is_refused_before_the_first_run(
    keys: dict[str, object],
    said: str,
    file: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue_module.Queue, "work", lambda *_: pytest.fail("a run started"))
    assert said in refused(["sweep", file(**keys)], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "neither a file nor a shipped configuration"),
        ("a: [", "is not YAML"),
        ("", "holds no sweep"),
        ("[1, 2]", "holds no sweep"),
        ("- command: fit", "holds no sweep"),
        ("arguments: [--a]\nseeds: 2", "command is None"),
        ("experiment: mine\nmodel: MAML", "not a sweep: lightning-meta fit -c"),
    ],
)
def test_other_files_are_refused(
    content: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.yaml"
    if content is not None:
        write(path, content)
    assert said in refused(["sweep", str(path)], capsys)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--jobs=0"], "--jobs is 0"),
        (["--jobs=two"], "invalid int value: 'two'"),
        (["--nice=20"], "--nice is 20"),
        (["--nice=-1"], "--nice is -1"),
        (["--dryrun"], "dryrun is not a setting: did you mean"),
        (["--data.wayz", "3"], "data.wayz is not a setting"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], said: str, file: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(["sweep", file(seeds=1), *options], capsys)


def test_a_configuration_is_not_a_sweep_and_a_sweep_not_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert "not a sweep: lightning-meta fit -c " in refused(["sweep", "quickstart"], capsys)
    assert "is a sweep, not the configuration of one run: lightning-meta sweep " in refused(
        ["fit", "-c", "sweeps/figure3"], capsys
    )


def test_a_shipped_sweep_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_sweep("long") == read_sweep("sweeps/long.yaml")
    assert main(["sweep", "figure3", "--data.root", "my data", "--dry-run", "--trainer.max_steps=9"]) == 0
    commands = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    words = shlex.split(commands[4])
    assert len(commands) == 30  # ten curves with three seeds
    assert words[1:6] == [
        "fit", "--config=omniglot/openai_combination", "--data.root", "my data", "--trainer.max_steps=9"
    ]  # fmt: skip
    assert words[6] == "--experiment=figure3/g3"
    assert main([*words[1:], "--print_config"]) == 0
    write(tmp_path / "figure3.yaml", {"command": "fit", "seeds": 1})
    assert read_sweep("figure3").path == Path("figure3.yaml")


def test_a_name_that_several_libraries_have_is_this_package_s(file: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import torchvision.ops  # noqa: F401 - has an MLP, too

    network = ["--model.backbone=MLP", "--model.backbone.inputs=784", "--model.backbone.hidden=[4]"]
    path = file(runs=[["--data.shots=1"]])
    content = yaml.safe_load(Path(path).read_text())
    content["arguments"] = [one for one in content["arguments"] if "backbone" not in one] + network
    assert main(["sweep", write(Path(path), content), "--dry-run"]) == 0
    assert "--model.backbone=MLP" in capsys.readouterr().out
