"""The command: its table, its files, what it says of bad input, and what it leaves alone."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_meta.report import figures
from lightning_meta.report.command import main

Make = Callable[..., Any]
MAML = "omniglot/finn_5w1s_maml"


@pytest.fixture
def logs(tmp_path: Path, make_run: Make, make_entry: Make) -> Path:
    """MAML, and another run."""
    make_run(MAML, [make_entry([0.2, 0.9])], validation={250: 0.5, 500: 0.6, 750: 0.6})
    make_run("omniglot/openai_o15", [make_entry([0.2, 0.95])])
    return tmp_path / "logs"


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds, and many tests are about other things."""
    monkeypatch.setattr(figures, "draw_all", lambda rows, protocol: {})


@pytest.mark.usefixtures("no_figures")
def test_prints_the_table_and_writes_it(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(logs)]) == 0
    printed = capsys.readouterr()
    assert printed.err == f"lightning-meta report: written to {logs / 'report'}: table.md, table.csv, table.tex\n"
    assert f"| {MAML} | MAML | Omniglot | 5-way 1-shot | 1,500 of 60,000 |" in printed.out
    assert (logs / "report" / "table.md").read_text() == printed.out
    assert (logs / "report" / "table.csv").read_text().startswith("experiment,")
    assert "\\toprule" in (logs / "report" / "table.tex").read_text()


@pytest.mark.usefixtures("no_figures")
def test_notes_go_to_stderr(logs: Path, make_run: Make, make_entry: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(MAML, [make_entry([0.95], measured="2026-12-01")])
    make_run("training", None)
    assert main([str(logs)]) == 0
    missing, superseded, _ = capsys.readouterr().err.splitlines()
    assert "training/version_0: no test results" in missing
    assert f"{MAML}/version_1 stands for" in superseded


@pytest.mark.usefixtures("no_figures")
def test_columns_are_chosen(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(logs), "--columns", "method, meta_steps,non transductive"]) == 0
    assert capsys.readouterr().out.startswith("| method | meta-steps | non-transductive |\n")
    text = (logs / "report" / "table.tex").read_text()
    assert "\\begin{tabular}{lll}\n\\toprule\nmethod & meta-steps & non-transductive \\\\\n" in text
    assert main([str(logs), "--columns", "method,speed"]) == 2
    assert "--columns has 'speed', expected some of method, experiment" in capsys.readouterr().err


def test_the_protocol_reaches_the_figures(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(figures, "draw_all", lambda rows, protocol: asked.append(protocol) or {})
    assert main([str(logs)]) == main([str(logs), "--protocol", "non-transductive"]) == 0
    assert asked == ["transductive", "non-transductive"]


def test_the_report_is_the_same_every_time(logs: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert main([str(logs), "--output", str(tmp_path / name)]) == 0
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert {"table.md", "table.csv", "table.tex", "learning_curves.png", "adaptation.png", "cost.png"} < one.keys()


@pytest.mark.usefixtures("no_figures")
def test_runs_stand_below_logs_by_default(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(logs.parent)
    assert main([]) == 0
    assert Path("logs/report/table.md").exists()


@pytest.mark.usefixtures("no_figures")
def test_a_damaged_run_costs_a_warning(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (logs / "omniglot/openai_o15/version_0/checkpoints/results.json").write_text("[")
    assert main([str(logs)]) == 0
    printed = capsys.readouterr()
    line, _ = printed.err.splitlines()
    assert line.startswith("lightning-meta report: warning: skipped a damaged run: ")
    assert "openai_o15/version_0/checkpoints/results.json" in line
    assert MAML in printed.out
    assert "| omniglot/openai_o15 |" not in printed.out


@pytest.mark.parametrize("runs", ["nowhere", "empty"])
def test_nothing_found(runs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / runs)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("lightning-meta report: error: RUNS ")
    assert printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("name", ["table.md", "cost.png"])
def test_never_replaces_files_of_others(name: str, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = logs / "mine"
    folder.mkdir()
    (folder / name).write_text("mine")
    assert main([str(logs), "--output", str(folder)]) == 2
    assert f"where {name} was not written by this command" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_text() == "mine"


def test_replaces_its_own_files_and_removes_figures_that_are_outdated(logs: Path, make_run: Make) -> None:
    assert main([str(logs)]) == 0
    (logs / "report" / "notes.txt").write_text("mine")
    (logs / "report" / "mine.png").write_text("mine")
    for run in (logs / MAML).iterdir():
        (run / "metrics.csv").unlink()
    assert main([str(logs)]) == 0
    names = {path.name for path in (logs / "report").iterdir()}
    assert "learning_curves.png" not in names
    assert {"notes.txt", "mine.png", "table.md", "cost.png"} < names


@pytest.mark.usefixtures("no_figures")
def test_output_that_cannot_be_written(logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(logs), "--output", str(tmp_path / "file" / "below")]) == 2
    assert "--output is" in capsys.readouterr().err


def test_needs_neither_torch_nor_the_rest_of_the_package() -> None:
    code = "import sys, lightning_meta.report.command; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pytorch_lightning", "torchmetrics", "learn2learn"} & set(loaded)
    own = {
        name for name in loaded if name.startswith("lightning_meta.") and not name.startswith("lightning_meta.report")
    }
    below = (
        "bounded_files",
        "curve_labels",
        "errors",
        "escaping",
        "intervals",
        "owned_files",
        "results_file",
        "task_values",
    )
    assert own == {f"lightning_meta.{name}" for name in below}
