"""The table of all configurations: published and measured figures from their files."""

from pathlib import Path

import pytest

from lightning_meta.report.configurations import main, table
from lightning_meta.report.published import read_configurations
from lightning_meta.report.rows import build_rows
from lightning_meta.report.runs import find_runs
from tests.report.conftest import MakeRun, entry

DOCS = Path(__file__).parents[2] / "docs"


def line(page: str, name: str) -> list[str]:
    (found,) = [line for line in page.split("\n") if line.startswith(f"| `{name}` |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_longest_run_is_shown_beside_the_published_figure(tmp_path: Path, make_run: MakeRun) -> None:
    name = "omniglot/finn_5w1s_maml"
    command = "lightning-meta fit -c x.yaml --model.inner.optimizer.lr 0.1 --data.root DIR --data.test_tasks 9"
    make_run(name, [entry([0.2, 0.9]), entry([0.2, 0.99], members=3)])
    make_run(name, [entry([0.2, 0.95], meta_steps=9000, command=command)], max_steps=9000)
    page = table(build_rows(find_runs([tmp_path])[0], read_configurations())[0])
    assert line(page, name) == [
        f"`{name}`", "MAML", "Finn, Abbeel and Levine (2017), arXiv 1703.03400", "60,000", "98.7 ± 0.4 (transductive)",
        "9,000", "95.00 ± 1.00", "47.50 ± 1.00", "`--model.inner.optimizer.lr 0.1`",
    ]  # fmt: skip
    assert line(page, "omniglot/finn_5w1s_anil")[3:] == ["(60,000)", "no figure for 5 ways", "", "", "", ""]
    fomaml = "98.3 ± 0.5 (transductive) by Nichol, Achiam and Schulman (2018), arXiv 1803.02999"
    assert line(page, "omniglot/finn_5w1s_fomaml")[4] == fomaml
    assert line(page, "omniglot/finn_5w1s_matching_networks")[4] == "98.1 (protocol not stated)"


def test_every_configuration_has_a_line() -> None:
    page = table([])
    assert [name for name in read_configurations() if line(page, name)] == list(read_configurations())


def test_the_page_of_the_documentation_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise: python -m lightning_meta.report.configurations docs > docs/configurations.md."""
    assert main([str(DOCS)]) == 0
    assert capsys.readouterr().out == (DOCS / "configurations.md").read_text()


def test_a_folder_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("error: RUNS names ")
