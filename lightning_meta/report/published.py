"""The figures that the sources print and the lengths of their runs, from ``published.yaml`` beside this file."""

from pathlib import Path
from typing import NamedTuple

from lightning_meta.report.runs import read_yaml


class Published(NamedTuple):
    """One figure of a paper, in %, with the half-width of its 95% interval."""

    authors: str
    year: int
    arxiv: str
    ways: int
    shots: int
    mean: float
    half_width: float
    transductive: bool
    meta_steps: int  # of the source's run, or those that we chose where it says none
    inner_steps: int  # at test

    def __str__(self) -> str:
        """The figure with as many digits as it was printed with, but for zeros at the end of both."""
        digits = max(len(repr(value).partition(".")[2]) for value in (self.mean, self.half_width))
        return f"{self.mean:.{digits}f} ± {self.half_width:.{digits}f}"


FILE = Path(__file__).with_name("published.yaml")


def read_lengths() -> dict[str, int]:
    """Meta-steps of a whole run, as the source states them or as we chose them, where no figure brings its own."""
    known = read_yaml(FILE)
    lengths: dict[str, int] = known["lengths"] | known["chosen_lengths"]
    return lengths


def read_published() -> dict[str, Published]:
    """All published figures by experiment."""
    figures, lengths = read_yaml(FILE)["figures"], read_lengths()
    for name in figures.keys() & lengths.keys():
        figures[name]["meta_steps"] = lengths[name]
    return {name: Published(**figure.pop("source"), **figure) for name, figure in figures.items()}
