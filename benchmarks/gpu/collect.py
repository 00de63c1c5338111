"""Brings what a GPU job sent back into the repository.

    python benchmarks/gpu/collect.py FOLDER

FOLDER holds ``results.tar.gz``. Measurements go to ``benchmarks/results/gpu``, where they take the place of older ones
of the same setting, with device, torch and date. Runs that were tested go to ``docs/results/runs/gpu``, with their
weights, which git ignores. Then ``table.md`` is written again.
"""

import csv
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import tables
from tables import RESULTS, RUNS, Row, read_rows

KEYS = {
    "correctness": ("algorithm", "precision", "tasks", "recorded", "downsample"),
    "rates": ("setting", "method"),
    "machines": ("device", "torch", "date"),
}
KEPT = ("metrics.csv", "checkpoints/results.json", "checkpoints/best-*.ckpt", "checkpoints/end-*.ckpt")


def merge(name: str, rows: list[Row]) -> None:
    """Put rows into a table of the results, in the place of those with the same key."""
    path = RESULTS / f"{name}.csv"
    merged = {tuple(str(row[key]) for key in KEYS[name]): row for row in [*read_rows(path), *rows]}
    columns = list(dict.fromkeys(column for row in merged.values() for column in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(merged.values())


def add_measurements(folder: Path) -> None:
    """The machine, the correctness and the rates, each row with the machine that gave it; none of trainings alone."""
    if not list(folder.glob("*.json")):
        return
    machine: Row = tables.read_json(folder / "machine.json")
    merge("machines", [machine])
    origin = {key: machine[key] for key in ("device", "torch", "date")}
    for name, patterns in {"correctness": ["correctness"], "rates": ["rates", "fused_*", "jax", "jax_tf32"]}.items():
        files = [path for pattern in patterns for path in sorted(folder.glob(f"{pattern}.json"))]
        rows = [row for path in files for row in read_rows(path)]
        merge(name, [{**row, **origin} for row in rows if row["state"] != "no time left"])


def add_run(source: Path, target: Path) -> None:
    """One run: what the report reads, and the weights; folders of the other machine become words."""
    results = (source / "checkpoints/results.json").read_bytes()
    if any(path.read_bytes() == results for path in target.glob("version_*/checkpoints/results.json")):
        return
    folder = target / f"version_{len(list(target.glob('version_*')))}"
    (folder / "checkpoints").mkdir(parents=True)
    config = (source / "config.yaml").read_text(encoding="utf-8")
    config = re.sub(r"(?m)^( +default_root_dir:).*", r"\1 logs", re.sub(r"(?m)^( +root:).*", r"\1 DATA", config))
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    for pattern in KEPT:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.relative_to(source))
    print(folder)


def main() -> None:
    """Collect, and print the tables."""
    with tempfile.TemporaryDirectory() as name, tarfile.open(Path(sys.argv[1]) / "results.tar.gz") as archive:
        archive.extractall(name, filter="data")
        add_measurements(Path(name) / "measured")
        for results in sorted(Path(name).glob("runs/gpu/*/version_*/checkpoints/results.json")):
            source = results.parents[1]
            add_run(source, RUNS / source.parent.name)
    tables.main()


if __name__ == "__main__":
    main()
