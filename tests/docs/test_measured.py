"""Every measured figure of the README and the site is that of a file in the repository, as are the tables."""

import csv
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from lightning_meta.cli.listing import describe
from lightning_meta.report import table
from lightning_meta.report.published import read_configurations
from lightning_meta.report.rows import build_rows
from lightning_meta.report.runs import find_runs
from tests.docs.pages import PAGES, ROOT

FIGURE = re.compile(r"(-?\d*\.?\d+)\s±\s(\d*\.?\d+)")
TABLES = {
    "docs/methods": "docs/results/methods",
    "docs/report": "docs/results/runs/cifarfs docs/results/runs/omniglot docs/results/runs/recipes",
    "docs/figure3": "docs/results/runs/figure3",
}
# Of commands on these pages whose runs are not kept: this list may become shorter.
WITHOUT_FILES = {
    "data.md": ["70.30 ± 1.57"],
    "environment.md": ["-4.50 ± 0.51", "-1.96 ± 0.22"],
    "methods.md": ["78.40 ± 2.02", "61.40 ± 2.46"],
    "results.md": ["73.00 ± 9.17", "46.33 ± 8.41"],
    "speed.md": ["95.37 ± 0.84", "95.90 ± 0.79", "89.27 ± 1.10", "90.80 ± 1.03"],
    "studies.md": [
        "35.48 ± 2.38", "34.20 ± 2.19", "92.97 ± 0.63", "90.41 ± 0.72", "91.34 ± 0.65", "88.39 ± 0.73", "96.40 ± 1.24",
        "96.40 ± 1.24", "96.40 ± 1.24", "96.40 ± 1.24",
    ],
}  # fmt: skip


def measured() -> Iterator[tuple[float, float]]:
    """Means and half-widths of all files, as they are and in %."""
    for path in ROOT.glob("docs/results/**/results.json"):
        for entry in json.loads(path.read_text(encoding="utf-8")):
            for metric in entry["metrics"].values():
                yield from zip(metric["mean"], metric["half_width"], strict=True)
    for path in (*ROOT.glob("benchmarks/results/**/*.csv"), *ROOT.glob("docs/*/table.csv")):
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            numbers = [float(value) for value in row.values() if re.fullmatch(r"-?\d+\.?\d*(e-?\d+)?", value or "")]
            yield from pairwise(numbers)  # a half-width stands after its mean
    for known in read_configurations().values():
        if known.published:
            yield known.published.mean, known.published.half_width or 0.0
    for path in ROOT.glob("lightning_meta/inference/pretrained/*.safetensors"):
        results = describe(path)["results"]
        yield from (tuple(results[name]) for name in ("alone", "together") if name in results)
    orders = subprocess.run([sys.executable, "benchmarks/studies/orders.py"], cwd=ROOT, capture_output=True, check=True)
    for mean, half_width in FIGURE.findall(orders.stdout.decode().replace("+", "")):
        yield float(mean), float(half_width)


@pytest.fixture(scope="module")
def rounded() -> set[tuple[int, int, str, str]]:
    """All pairs as texts of up to four decimals."""
    pairs = {(scale * mean, scale * half_width) for mean, half_width in measured() for scale in (1, 100)}
    return {
        (first, second, f"{mean:.{first}f}", f"{half_width:.{second}f}")
        for mean, half_width in pairs
        for first in range(5)
        for second in range(5)
        if abs(first - second) < 2
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_figure_with_an_interval_is_that_of_a_file(page: Path, rounded: set[tuple[int, int, str, str]]) -> None:
    unknown = []
    for mean, half_width in FIGURE.findall(page.read_text(encoding="utf-8")):
        decimals = [len(text.partition(".")[2]) for text in (mean, half_width)]
        texts = [f"{float(text):.{places}f}" for text, places in zip((mean, half_width), decimals, strict=True)]
        if (*decimals, *texts) not in rounded:
            unknown.append(f"{mean} ± {half_width}")
    assert unknown == WITHOUT_FILES.get(page.name, [])


@pytest.mark.parametrize("folder", TABLES)
def test_the_tables_are_those_of_the_runs(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise: lightning-meta report FOLDERS --output FOLDER, as the pages say."""
    monkeypatch.chdir(ROOT)
    runs, _ = find_runs([Path(path) for path in shlex.split(TABLES[folder])])
    rows, _ = build_rows(runs, read_configurations())
    assert table.markdown(rows) == ROOT.joinpath(folder, "table.md").read_text(encoding="utf-8")
    assert table.comma_separated(rows) == ROOT.joinpath(folder, "table.csv").read_text(encoding="utf-8")
    assert table.latex(rows) == ROOT.joinpath(folder, "table.tex").read_text(encoding="utf-8")


def test_the_order_of_the_methods_is_that_of_the_table() -> None:
    """Otherwise: python benchmarks/studies/orders.py."""
    orders = subprocess.run([sys.executable, "benchmarks/studies/orders.py"], cwd=ROOT, capture_output=True, check=True)
    page = ROOT.joinpath("docs/methods.md").read_text(encoding="utf-8")
    assert [line for line in orders.stdout.decode().splitlines() if line and line not in page] == []
