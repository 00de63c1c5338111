"""The table in its three forms, against figures that were computed by hand."""

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_meta.report.published import read_configurations
from lightning_meta.report.rows import Row, build_rows
from lightning_meta.report.runs import find_runs
from lightning_meta.report.table import comma_separated, latex, markdown

Make = Callable[..., Any]
MAML = "omniglot/finn_5w1s_maml"


@pytest.fixture
def rows(tmp_path: Path, make_run: Make, make_entry: Make) -> list[Row]:
    """MAML with two seeds, Reptile with one, and a regression."""
    for seed, value in ((0, 0.95), (1, 0.96)):
        entry = make_entry([0.2, 0.9, 0.9, value, 0.5], nontransductive=[0.2, 0.9, 0.9, 0.8, 0.5])
        make_run(MAML, [entry], seed=seed)
    make_run(
        "omniglot/openai_o15", [make_entry([0.2, 0.951], 0.005, nontransductive=[0.2, 0.952])], algorithm="Reptile"
    )
    make_run("sinusoid/a|b", [make_entry([3.0, 0.25], kind="loss")], kind="loss", data="SinusoidEpisodes")
    return build_rows(find_runs([tmp_path])[0], read_configurations())[0]


def test_markdown(rows: list[Row]) -> None:
    text = markdown(rows)
    lines = text.split("\n")
    assert lines[2:5] == [
        f"| {MAML} | MAML | Omniglot | 5-way 1-shot | 1,500 of 60,000 | 0, 1 | cpu, 1 thread | 8.0 | "
        "best by transductive accuracy | 3 | 600 x 5 | "
        "95.50 ± 6.35 | 80.00 ± 0.71 | 98.7 ± 0.4 (transductive) | -3.20 | inside |",
        "| omniglot/openai_o15 | Reptile | Omniglot | 5-way 1-shot | 1,500 of 100,000 | 0 | cpu, 1 thread | 8.0 | "
        "best by transductive accuracy | 1 | 600 x 5 | "
        "95.10 ± 0.50 | 95.20 ± 0.50 | 95.39 ± 0.09 (non-transductive) | -0.19 | inside |",
        "| sinusoid/a\\|b | MAML | Sinusoid | 1-shot | 1,500 | 0 | cpu, 1 thread | 8.0 | "
        "best by transductive loss | 1 | 600 x 5 | loss 0.2500 ± 0.0100 | loss 0.1250 ± 0.0100 |  |  |  |",
    ]
    assert "Student's t interval over seeds" in text
    assert "Published: Finn, Abbeel and Levine (2017), arXiv 1703.03400; Nichol, Achiam" in text
    assert f"- {MAML}, 1,500 of 60,000 meta-steps: `lightning-meta fit -c x.yaml`" in lines


def test_csv_has_bare_numbers(rows: list[Row]) -> None:
    maml, reptile, sinusoid = csv.DictReader(comma_separated(rows).splitlines())
    assert (maml["experiment"], maml["seeds"], maml["meta_steps"], maml["full_meta_steps"]) == (
        MAML, "0, 1", "1500", "60000",
    )  # fmt: skip
    assert float(maml["transductive"]) == pytest.approx(95.5)
    assert float(maml["transductive_half_width_95"]) == pytest.approx(12.706 * 0.5)
    assert float(maml["difference"]) == pytest.approx(-3.2)
    assert (reptile["published_transductive"], reptile["verdict"], float(reptile["nontransductive"])) == (
        "False", "inside", 95.2,
    )  # fmt: skip
    assert (sinusoid["metric"], sinusoid["published"], sinusoid["verdict"]) == ("loss", "", "")


def test_latex_has_groups_and_the_best_of_each_in_bold(rows: list[Row]) -> None:
    text = latex(rows)
    (body,) = re.findall(r"\\midrule\n(.*)\\bottomrule", text, re.DOTALL)
    few, sinusoid = body.split("\\midrule\n")
    assert few.splitlines() == [
        r"MAML & Omniglot & 5-way 1-shot & \textbf{95.50 $\pm$ 6.35} & 80.00 $\pm$ 0.71 & "
        r"98.7 $\pm$ 0.4 (transductive) \\",
        r"Reptile & Omniglot & 5-way 1-shot & 95.10 $\pm$ 0.50 & \textbf{95.20 $\pm$ 0.50} & "
        r"95.39 $\pm$ 0.09 (non-transductive) \\",
    ]
    assert sinusoid == "MAML & Sinusoid & 1-shot & loss 0.2500 $\\pm$ 0.0100 & loss 0.1250 $\\pm$ 0.0100 &  \\\\\n"
    assert [text.count(rule) for rule in ("\\toprule", "\\midrule", "\\bottomrule")] == [1, 2, 1]
    assert "Accuracy in \\% (" in text


def test_the_lower_loss_is_the_better(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    for name, loss in (("a", 0.5), ("b", 0.25), ("c", 0.25)):
        make_run(name, [make_entry([3.0, loss], kind="loss")], kind="loss")
    text = latex(build_rows(find_runs([tmp_path])[0], {})[0], ["experiment", "transductive"])
    assert re.findall(r"^(\w) & (?=\\textbf{loss 0.25)", text, re.MULTILINE) == ["b", "c"]  # both print the same


def test_what_is_not_known_is_left_empty(tmp_path: Path, make_run: Make, make_entry: Make) -> None:
    entry = make_entry([0.2, math.nan], minutes=None, device=None, command=None, queries=None)
    entry["metrics"]["query_accuracy"]["diverged"] = [0, 3]
    del entry["metrics"]["query_nontransductive_accuracy"]
    make_run(MAML, [entry])
    text = markdown(build_rows(find_runs([tmp_path])[0], read_configurations())[0])
    assert text.split("\n")[2].endswith(
        "| 0 |  |  | best by transductive accuracy | 1 | 600 | "
        "diverged in 3 tasks |  | 98.7 ± 0.4 (transductive) |  | diverged |"
    )
    assert "lightning-meta fit" not in text


def test_a_figure_near_100_percent_has_wilsons_interval_in_brackets(
    tmp_path: Path, make_run: Make, make_entry: Make
) -> None:
    """600 tasks whose accuracies spread as 1,194 single answers do, of which 6 are wrong."""
    make_run("near", [make_entry([0.2, 0.995], 0.004, nontransductive=[0.2, 0.9])])
    make_run("loss", [make_entry([0.2, 0.995], 0.004, kind="loss")], kind="loss")
    for seed in (0, 1):
        make_run("seeds", [make_entry([0.2, 0.995], 0.004, seed=seed)], seed=seed)
    text = markdown(build_rows(find_runs([tmp_path])[0], {})[0])
    assert "| 99.50 ± 0.40 \\[98.91, 99.77] | 90.00 ± 0.40 |" in text
    assert text.count("\\[") == 1
