"""The command line ``lightning-meta report``: runs in, a table and figures out."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from lightning_meta.errors import MetaLearningError
from lightning_meta.escaping import printable
from lightning_meta.owned_files import replace_files
from lightning_meta.report import figures, pairs, table
from lightning_meta.report.pairs import find_differences
from lightning_meta.report.published import PROTOCOLS, Protocol, read_configurations
from lightning_meta.report.rows import build_rows
from lightning_meta.report.runs import find_runs

MANIFEST = ".lightning-meta-report"  # names of the files that a report wrote, so that the next one may replace them


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong without its usage."""

    def error(self, message: str) -> NoReturn:
        """End in the one error that is meant for people."""
        raise MetaLearningError(message)


def main(args: list[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 where nothing could be reported.

    Args:
        args: arguments; those of the process when None.
    """
    parser = Parser("lightning-meta report", description="Show all runs below folders RUNS.")
    parser.add_argument("runs", nargs="*", type=Path, default=[Path("logs")], metavar="RUNS", help="default: logs")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the report (default: RUNS/report)")
    help_text = "how queries are classified in the figures (default: %(default)s); the table has both"
    parser.add_argument("--protocol", choices=PROTOCOLS, default="transductive", help=help_text)
    help_text = f"columns of the table, with commas: {', '.join(table.COLUMNS)} (default: all but method; in table.tex "
    help_text += f"{', '.join(table.PAPER)}); table.csv has everything"
    parser.add_argument("--columns", metavar="NAMES", help=help_text)
    try:
        options = parser.parse_args(args)
        columns = None if options.columns is None else _columns(options.columns)
        report(options.runs, options.output or options.runs[0] / "report", options.protocol, columns)
    except MetaLearningError as error:
        _say(f"error: {error}")
        return 2
    return 0


def _columns(names: str) -> list[str]:
    """Columns by name, in which a space may be an underscore or a hyphen."""
    known = {column.replace("-", " "): column for column in table.COLUMNS}
    columns = []
    for name in names.split(","):
        column = " ".join(name.replace("_", " ").replace("-", " ").split())
        if column not in known:
            raise MetaLearningError(f"--columns has {name.strip()!r}, expected some of {', '.join(table.COLUMNS)}")
        columns.append(known[column])
    return columns


def report(roots: Sequence[Path], output: Path, protocol: Protocol, columns: Sequence[str] | None = None) -> None:
    """Print the table, write it and the figures, and say where.

    Args:
        roots: folders that hold runs, at any depth.
        output: folder of the report.
        protocol: of the figures.
        columns: of the table, some of `table.COLUMNS`; those of people and of papers when None.

    Raises:
        MetaLearningError: no run with results, or the report would replace a file that is not its own.
    """
    runs, notes = find_runs(roots)
    rows, superseded = build_rows(runs, read_configurations())
    differences, unread = find_differences(rows)
    for note in notes + superseded + unread:
        _say(note)
    if not rows:
        raise MetaLearningError(
            f"RUNS is {', '.join(map(str, roots))}, where no run has test results: "
            "name folders below which lightning-meta fit or test has written checkpoints/results.json"
        )
    text = table.markdown(rows, columns or table.TITLES) + pairs.markdown(differences)
    print(text, end="")
    files: dict[str, Callable[[Path], object]] = {
        "table.md": lambda path: path.write_text(text, encoding="utf-8"),
        "table.csv": lambda path: path.write_text(table.comma_separated(rows), encoding="utf-8"),
        "table.tex": lambda path: path.write_text(table.latex(rows, columns or table.PAPER), encoding="utf-8"),
    }
    if differences:
        files["differences.csv"] = lambda path: path.write_text(pairs.comma_separated(differences), encoding="utf-8")
    for name, figure in figures.draw_all(rows, protocol).items():
        files[name] = lambda path, figure=figure: figure.savefig(path, format="png", dpi=120)  # type: ignore[misc]
    try:
        replace_files(output, files, MANIFEST, "--output")
    except (OSError, ValueError) as error:
        raise MetaLearningError(f"--output is {output}, which cannot be written: {error}") from error
    _say(f"written to {output}: {', '.join(files)}")


def _say(line: str) -> None:
    print(f"lightning-meta report: {printable(line)}", file=sys.stderr)
