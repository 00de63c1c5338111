"""Which subcommand runs, and that one without a learner starts without PyTorch."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from lightning_meta.cli import main
from lightning_meta.cli.dispatch import SUBCOMMANDS
from tests.cli.helpers import refused

HEAVY = {"torch", "pytorch_lightning", "torchmetrics", "learn2learn"}


def in_process(args: list[str], folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own as the console script does, whose folder stands first on the path."""
    program = f"import sys; sys.argv = {['lightning-meta', *args]}; sys.path[0] = 'bin'\n{code}"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_help_names_every_subcommand_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == main([]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    for name, (_, _, summary) in SUBCOMMANDS.items():
        assert lines.count([name, summary]) == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lightning-meta {metadata.version('lightning-meta')}\n"


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: lightning-meta {name}")
    assert len(printed.splitlines()) < 60


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["list", "methods"], ["list", "configs"], ["report", "-h"]]
)
def test_what_needs_no_learner_does_not_load_pytorch(args: list[str], tmp_path: Path) -> None:
    code = "from lightning_meta.cli import main; status = main(); print('loaded', *sys.modules); sys.exit(status)"
    run = in_process(args, tmp_path, code)
    assert run.returncode == 0, run.stderr
    assert not HEAVY & set(run.stdout.rpartition("loaded")[2].split())


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_wait_briefly_unless_somebody_wants_otherwise(
    given: dict[str, str], found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting stands when PyTorch, which reads it once, is not yet there."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    code = """import os; from lightning_meta.cli import main; main()
print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)"""
    assert in_process(["list", "methods"], tmp_path, code).stdout.splitlines()[-1] == f"{found} False"


def test_help_does_not_import_learn2learn(tmp_path: Path) -> None:
    run = in_process(["fit", "--help"], tmp_path, "from lightning_meta.cli import main; main(); print(*sys.modules)")
    assert "torch" in run.stdout.split()
    assert "learn2learn" not in run.stdout.split()


def test_the_console_script_finds_a_class_in_the_current_folder(tmp_path: Path) -> None:
    tmp_path.joinpath("mymodule.py").write_text(
        'from lightning_meta.algorithms import MAML\n\n\nclass CAVIA(MAML):\n    """Context."""\n'
    )
    args = ["fit", "-c", "quickstart", "--model", "mymodule.CAVIA", "--print_config"]
    run = in_process(args, tmp_path, "from lightning_meta.cli import main; sys.exit(main())")
    assert run.returncode == 0, run.stderr
    assert "class_path: mymodule.CAVIA" in run.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["fti"], "fti is not a subcommand: did you mean fit?"),
        (["xyz"], "expected one of fit, validate, test, predict,"),
        (["-c", "quickstart", "fit"], "and options after it"),
    ],
)
def test_mistakes(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(args, capsys)
