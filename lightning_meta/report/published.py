"""What is known of every shipped configuration: method, source, length of a run and published figure.

The data are in ``published.yaml`` beside this file, and typed nowhere else. Reading them needs no PyTorch, so a command
that only lists configurations starts at once:

>>> maml = published("omniglot/finn_5w1s_maml")
>>> maml.method, str(maml.source), str(maml.published), maml.published.protocol
('MAML', 'Finn, Abbeel and Levine (2017), arXiv 1703.03400', '98.7 ± 0.4', 'transductive')
>>> published("omniglot/finn_5w1s_anil").unpublished
'no figure for 5 ways'
"""

import difflib
import functools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import yaml

from lightning_meta.errors import MetaLearningError

Protocol = Literal["transductive", "non-transductive"]
PROTOCOLS: tuple[Protocol, Protocol] = ("transductive", "non-transductive")

FILE = Path(__file__).with_name("published.yaml")


class Source(NamedTuple):
    """Where a configuration or a figure is from."""

    authors: str
    year: int
    arxiv: str | None = None
    code: str | None = None  # owner/name on GitHub

    def __str__(self) -> str:
        return f"{self.authors} ({self.year})" + (f", arXiv {self.arxiv}" if self.arxiv else "")


class Published(NamedTuple):
    """An accuracy that a source prints, in %."""

    source: Source
    ways: int
    shots: int
    mean: float
    half_width: float | None  # of the 95% interval; None where the source prints none
    protocol: Protocol | None  # how queries are classified; None where the source does not say
    inner_steps: int | None  # of the source's test

    @property
    def comparable(self) -> bool:
        """Whether a measured accuracy can be compared with it: its interval and protocol are known."""
        return self.half_width is not None and self.protocol is not None

    def __str__(self) -> str:
        """Mean and half-width with the same number of decimals."""
        values = [self.mean] if self.half_width is None else [self.mean, self.half_width]
        decimals = max(len(repr(value).partition(".")[2]) for value in values)
        return " ± ".join(f"{value:.{decimals}f}" for value in values)


class Configuration(NamedTuple):
    """One shipped configuration, or one run of a shipped sweep."""

    name: str  # such as omniglot/finn_5w1s_maml
    method: str  # as figures name it
    source: Source | None  # None for data of this package or your own
    meta_steps: int  # of a whole run
    meta_steps_stated: bool  # by the source; otherwise our choice
    published: Published | None
    unpublished: str | None  # why there is no published figure


@functools.cache
def read_configurations() -> Mapping[str, Configuration]:
    """All configurations by name, in the order of the file."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    sources = {key: Source(**source) for key, source in content["sources"].items()}
    entries = content["configurations"].items()
    return MappingProxyType({name: _configuration(name, entry, sources) for name, entry in entries})


def published(name: str) -> Configuration:
    """What is known of a shipped configuration.

    Args:
        name: its path below ``configs/`` without ``.yaml``.

    Raises:
        MetaLearningError: there is no such configuration.
    """
    known = read_configurations()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "it is the path below configs/ without .yaml"
        raise MetaLearningError(f"configuration is {name}, which is not a shipped one: {hint}")
    return known[name]


def _configuration(name: str, entry: dict[str, Any], sources: Mapping[str, Source]) -> Configuration:
    stated = entry.get("stated_meta_steps")
    source = entry.get("source")
    figure = entry.get("published")
    return Configuration(
        name=name,
        method=entry["method"],
        source=sources[source] if source else None,
        meta_steps=entry["chosen_meta_steps"] if stated is None else stated,
        meta_steps_stated=stated is not None,
        published=_figure(figure, sources[figure.get("source", source)]) if figure else None,
        unpublished=entry.get("unpublished"),
    )


def _figure(entry: dict[str, Any], source: Source) -> Published:
    protocol = next((protocol for protocol in PROTOCOLS if protocol in entry), None)
    figure = entry[protocol] if protocol else entry
    return Published(
        source=source,
        ways=entry["ways"],
        shots=entry["shots"],
        mean=figure["mean"],
        half_width=figure.get("half_width"),
        protocol=protocol,
        inner_steps=entry.get("inner_steps"),
    )
