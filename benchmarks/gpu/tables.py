"""Markdown tables of what the GPU job measured.

    python benchmarks/gpu/tables.py

Writes ``table.md`` from the CSV files of ``benchmarks/results/gpu`` and the runs of ``docs/results/runs/gpu``.
"""

import csv
import json
from pathlib import Path
from typing import Any

from settings import METHODS

RESULTS = Path(__file__).parents[1] / "results" / "gpu"
RUNS = Path(__file__).parents[2] / "docs" / "results" / "runs" / "gpu"
Row = dict[str, Any]


def read_json(path: Path) -> Any:
    """What a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_rows(path: Path) -> list[Row]:
    """Rows of a JSON or CSV file; none where there is no file."""
    if not path.exists():
        return []
    if path.suffix == ".json":
        return list(read_json(path))
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: value for key, value in row.items() if value != ""} for row in csv.DictReader(file)]


def markdown(header: list[str], lines: list[list[str]]) -> str:
    """A table, or nothing without lines."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) if lines else ""


def correctness_table(rows: list[Row]) -> str:
    """The largest relative error of each algorithm and precision, and how many settings were right."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["state"] != "no time left":
            groups.setdefault((row["algorithm"], row["precision"]), []).append(row)
    lines = []
    for (algorithm, precision), group in sorted(groups.items()):
        errors = [float(row["error"]) for row in group if "error" in row]
        wrong = sorted({row["state"] for row in group} - {"ok"})
        right = f"{sum(row['state'] == 'ok' for row in group)} of {len(group)}"
        lines.append([algorithm, precision, right, f"{max(errors):.1e}" if errors else "", "; ".join(wrong)])
    return markdown(["algorithm", "precision", "right", "largest relative error", "what went wrong"], lines)


def rates_table(rows: list[Row]) -> str:
    """Milliseconds of a meta-step, many in a row; one column for each method."""
    found = {(row["setting"], row["method"]): row for row in rows if row["state"] != "no time left"}
    methods = [method for method in METHODS if any(method == other for _, other in found)]
    lines = []
    for setting in dict.fromkeys(setting for setting, _ in found):
        cells = []
        for method in methods:
            row = found.get((setting, method), {})
            cells.append(f"{float(row['ms']):.3g}" if "ms" in row else str(row.get("state", "")))
        lines.append([setting, *cells])
    return markdown(["ms a meta-step", *methods], lines)


def runs_table(folder: Path) -> str:
    """The test accuracy of every run below a folder, after its last inner step."""
    lines = []
    for path in sorted(folder.rglob("results.json")):
        for entry in read_json(path):
            if entry["split"] != "test":
                continue
            metrics = entry["metrics"]
            cells = [
                f"{100 * metrics[name]['mean'][-1]:.2f} ± {100 * metrics[name]['half_width'][-1]:.2f}"
                for name in ("query_accuracy", "query_nontransductive_accuracy")
            ]
            tasks = metrics["query_accuracy"]["tasks"]
            steps = f"{entry['meta_steps']:,}"
            lines.append([entry["experiment"], steps, str(entry["minutes"]), entry["device"], f"{tasks:,}", *cells])
    header = ["run", "meta-steps", "minutes", "device", "test tasks", "transductive", "non-transductive"]
    return markdown(header, lines)


def all_tables() -> str:
    """The tables of the committed results."""
    found = [correctness_table(read_rows(RESULTS / "correctness.csv")), rates_table(read_rows(RESULTS / "rates.csv"))]
    return "\n\n".join(filter(None, [*found, runs_table(RUNS)])) + "\n"


def main() -> None:
    """Write them, and print them."""
    text = all_tables()
    (RESULTS / "table.md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
