"""Several runs from one file."""

from pathlib import Path

import pytest
import yaml

from lightning_meta.cli import lightning_cli, main
from lightning_meta.cli.sweep import read_sweep
from tests.cli.helpers import small


def write(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


@pytest.mark.slow
def test_a_run_that_fails_does_not_keep_the_next_from_starting(tmp_path: Path) -> None:
    runs = [["--model.inner.steps=0"], ["--data.ways=99"], ["--data.wayz=3"], ["--model.inner.steps=1"]]
    arguments = [*small(tmp_path), "--model.compile=false"]
    file = write(tmp_path / "sweep.yaml", {"command": "fit", "arguments": arguments, "runs": runs})
    assert main(["sweep", file, "--trainer.max_steps=1"]) == 2
    found = {}
    for results in tmp_path.rglob("results.json"):
        config = yaml.safe_load((results.parents[1] / "config.yaml").read_text())
        found[config["model"]["init_args"]["inner"]["steps"]] = config["trainer"]["max_steps"]
    assert found == {0: 1, 1: 1}


def test_settings_stand_between_those_of_the_file_and_those_of_a_run(tmp_path: Path) -> None:
    """A configuration given by hand may not undo what makes the runs different."""
    file = write(tmp_path / "sweep.yaml", {"command": "test", "arguments": ["--a"], "runs": [["--b"], ["--c"]]})
    assert read_sweep(file, ["--d"]) == [["test", "--a", "--d", "--b"], ["test", "--a", "--d", "--c"]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "neither a file nor a shipped configuration"),
        ("a: [", "is not YAML"),
        ("[1, 2]", "must hold `command`"),
        ({"command": "fit", "arguments": []}, "must hold `command`"),
        ({"command": "fit", "arguments": [], "runs": []}, "must hold `command`"),
        ({"command": "fit", "arguments": [], "runs": ["--a=1"]}, "must hold `command`"),
    ],
)
def test_other_files_are_refused(
    content: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.yaml"
    if content is not None:
        write(path, content)
    assert main(["sweep", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_a_shipped_sweep_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = read_sweep("sweeps/figure3", ["--data.root=data"])
    assert len(runs) == 10
    assert runs[0][:3] == ["fit", "--config=omniglot/openai_combination", "--data.root=data"]
    assert main([*runs[0], "--print_config"]) == 0


def test_an_interrupt_from_the_keyboard_stops_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def interrupted(args: list[str]) -> int:
        started.append(args)
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904  # as Lightning ends a run

    monkeypatch.setattr(lightning_cli, "fit", interrupted)
    file = write(tmp_path / "sweep.yaml", {"command": "fit", "arguments": [], "runs": [[], []]})
    with pytest.raises(SystemExit):
        main(["sweep", file])
    assert len(started) == 1
