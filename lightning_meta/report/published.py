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
    meta_steps: int  # of the source's run
    inner_steps: int  # at test

    def __str__(self) -> str:
        """The figure with as many digits as it was printed with, but for zeros at the end of both."""
        digits = max(len(repr(value).partition(".")[2]) for value in (self.mean, self.half_width))
        return f"{self.mean:.{digits}f} ± {self.half_width:.{digits}f}"


FILE = Path(__file__).with_name("published.yaml")


def read_lengths() -> dict[str, int]:
    """Meta-steps of the source's run for experiments without a published figure."""
    lengths: dict[str, int] = read_yaml(FILE)["lengths"]
    return lengths


def read_published() -> dict[str, Published]:
    """All published figures by experiment."""
    figures = read_yaml(FILE)["figures"]
    return {name: Published(**figure.pop("source"), **figure) for name, figure in figures.items()}
