"""The table of all shipped configurations, published and measured, for the documentation.

    python -m lightning_meta.report.configurations docs > docs/configurations.md

Published figures come from ``published.yaml``, measured ones from the ``results.json`` of the runs below the folders.
"""

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning_meta.errors import MetaLearningError
from lightning_meta.report.published import PROTOCOLS, Configuration, read_configurations
from lightning_meta.report.rows import Row, build_rows
from lightning_meta.report.runs import find_runs
from lightning_meta.report.settings import TRIVIAL

TITLES = ("configuration", "method", "source", "meta-steps", "published", "trained for", *PROTOCOLS, "settings changed")

NOTES = (
    "Accuracy in % (or the loss, where it says so) on unseen tasks, ± the half-width of the 95% interval; measured on "
    "the longest run of each configuration, published under the protocol in brackets, or the reason why there is no "
    "figure. Transductive: the queries of a task are classified together; non-transductive: one at a time. Meta-steps "
    "in brackets are our choice, since no source states them.",
    "Written by `python -m lightning_meta.report.configurations`; do not edit.",
)


def main(folders: Sequence[str]) -> int:
    """Print the table, with the runs below these folders; returns the exit status, 2 where a folder does not exist."""
    try:
        runs, _ = find_runs([Path(folder) for folder in folders])
    except MetaLearningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(build_rows(runs, read_configurations())[0]), end="")
    return 0


def table(rows: Iterable[Row]) -> str:
    """The page, in Markdown.

    Args:
        rows: measured, of which the one with most meta-steps counts.
    """
    longest: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.first.meta_steps):
        if row.main and not row.untrained:
            longest[row.first.experiment] = row
    cells = [_cells(known, longest.get(name)) for name, known in read_configurations().items()]
    lines = [f"| {' | '.join(line)} |" for line in [TITLES, ["---"] * len(TITLES), *cells]]
    return "\n\n".join(["# Configurations", *NOTES, "\n".join(lines)]) + "\n"


def _cells(known: Configuration, row: Row | None) -> list[str]:
    figure = known.published
    published = known.unpublished or ""
    if figure:
        published = f"{figure} ({figure.protocol or 'protocol not stated'})"
        published += f" by {figure.source}" if figure.source != known.source else ""
    return [
        f"`{known.name}`",
        known.method,
        str(known.source or ""),
        f"{known.meta_steps:,}" if known.meta_steps_stated else f"({known.meta_steps:,})",
        published,
        *(_measured(row) if row else [""] * 4),
    ]


def _measured(row: Row) -> list[str]:
    decimals, unit = (2, "") if row.kind == "accuracy" else (4, "loss ")
    figures = [row.figure(protocol) for protocol in PROTOCOLS]
    shown = [f"{unit}{value.mean:.{decimals}f} ± {value.half_width:.{decimals}f}" if value else "" for value in figures]
    return [f"{row.first.meta_steps:,}", *shown, changed(row.entries[0].command or "")]


def changed(command: str) -> str:
    """Arguments of a command line that change what is learned or on which tasks it is tested.

    >>> changed("lightning-meta fit -c a.yaml --model.inner.optimizer.lr 0.02 --data.root=DIR --data.test_tasks 9")
    '`--model.inner.optimizer.lr 0.02`'
    """
    words = [part for word in shlex.split(command) for part in (word.split("=", 1) if word[:2] == "--" else [word])]
    pairs = [(name, value) for name, value in zip(words, [*words[1:], ""], strict=True) if name[:2] == "--"]
    own = [
        f"{name} {value}"
        for name, value in pairs
        if name.startswith(("--model.", "--data.")) and not name.endswith("_tasks") and name[2:] not in TRIVIAL
    ]
    return f"`{' '.join(own)}`" if own else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
