"""Several runs from one file."""

from pathlib import Path

import pytest
import yaml

from lightning_meta.cli import sweep
from tests.cli.test_command import small


def write(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


@pytest.mark.slow
def test_a_run_that_fails_does_not_keep_the_next_from_starting(tmp_path: Path) -> None:
    runs = [["--model.inner.steps=0"], ["--data.ways=99"], ["--data.wayz=3"], ["--model.inner.steps=1"]]
    arguments = [*small(tmp_path), "--model.compile=false"]
    file = write(tmp_path / "sweep.yaml", {"command": "fit", "arguments": arguments, "runs": runs})
    assert sweep.main([file, "--trainer.max_steps=1"]) == 2
    found = {}
    for results in tmp_path.rglob("results.json"):
        config = yaml.safe_load((results.parents[1] / "config.yaml").read_text())
        found[config["model"]["init_args"]["inner"]["steps"]] = config["trainer"]["max_steps"]
    assert found == {0: 1, 1: 1}


def test_settings_stand_between_those_of_the_file_and_those_of_a_run(tmp_path: Path) -> None:
    """A configuration given by hand may not undo what makes the runs different."""
    file = write(tmp_path / "sweep.yaml", {"command": "test", "arguments": ["--a"], "runs": [["--b"], ["--c"]]})
    assert sweep.read_sweep(Path(file), ["--d"]) == [["test", "--a", "--d", "--b"], ["test", "--a", "--d", "--c"]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist"),
        ("a: [", "cannot be read as YAML"),
        ("[1, 2]", "must hold `command`"),
        ({"command": "fit", "arguments": []}, "must hold `command`"),
        ({"command": "fit", "arguments": [], "runs": []}, "must hold `command`"),
        ({"command": "fit", "arguments": [], "runs": ["--a=1"]}, "must hold `command`"),
    ],
)
def test_files_that_are_no_sweep_are_refused(
    content: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.yaml"
    if content is not None:
        write(path, content)
    assert sweep.main([str(path)]) == 2
    assert said in capsys.readouterr().err
