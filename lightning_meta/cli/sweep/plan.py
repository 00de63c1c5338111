"""What a sweep file asks for: the arguments of every run, checked before the first one starts."""

import difflib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_meta.cli.configurations import find_configuration, read_configuration, shipped_configurations
from lightning_meta.cli.sweep.space import Search, argument, read_search
from lightning_meta.errors import MetaLearningError

COMMANDS = ("fit", "validate", "test", "predict")
KEYS = ("command", "arguments", "runs", "grid", "seeds", "search")


@dataclass(frozen=True)
class Sweep:
    """A sweep file with the settings of the command line."""

    path: Path
    command: str
    common: list[str]  # the file's arguments of all runs
    settings: list[str]  # those of the command line
    own: list[list[str]] = field(default_factory=list)  # what each run is given besides
    search: Search | None = None

    @property
    def parts(self) -> list[list[str]]:
        """What each run is given besides; of a search the corners of its space."""
        return self.search.corners() if self.search else self.own

    def arguments(self, own: Sequence[str]) -> list[str]:
        """The command and arguments of a run.

        Its configurations come before the settings of the command line, which otherwise they would undo.
        """
        configurations, others = _split(own)
        return [self.command, *self.common, *configurations, *self.settings, *others]

    @property
    def runs(self) -> list[list[str]]:
        """The command and arguments of every run."""
        return [self.arguments(own) for own in self.parts]


def _split(own: Sequence[str]) -> tuple[list[str], list[str]]:
    """The configurations among arguments, and the other arguments."""
    configurations: list[str] = []
    others: list[str] = []
    for place, one in enumerate(own):
        named = own[place - 1] in ("-c", "--config") if place else False
        found = named or one in ("-c", "--config") or one.startswith("--config=")
        (configurations if found else others).append(one)
    return configurations, others


def read_sweep(name: str, settings: Sequence[str] = ()) -> Sweep:
    """Read a sweep.

    Args:
        name: path of the YAML file, or name of a shipped sweep, with or without ``sweeps/`` before it.
        settings: further arguments of all runs.

    Raises:
        MetaLearningError: the file is missing, not YAML, or not a sweep.
    """
    path = _find(name)
    content = read_configuration(path)
    if not isinstance(content, dict):
        raise MetaLearningError(f"{path} holds no sweep, expected the keys command and {', '.join(KEYS[1:])}")
    _check_keys(path, content)
    common = _arguments(path, "arguments", content.get("arguments", []))
    seeds = _seeds(path, content.get("seeds"), [*common, *settings], content.get("runs", []))
    if "search" in content:
        search = read_search(path, content["search"])
        if len(seeds) > 1:
            raise MetaLearningError(f"{path} holds both search and seeds: give --seed_everything among the arguments")
        return Sweep(path, content["command"], [*common, *seeds[0]], [*settings], search=search)
    runs = content.get("runs", [[]])
    if not isinstance(runs, list) or not runs:
        raise MetaLearningError(f"{path}: runs is {runs!r}, expected a list with a list of arguments for each run")
    grid = _grid(path, content["grid"]) if "grid" in content else [[]]
    own = [[*_arguments(path, f"runs[{i}]", run), *point, *seed] for seed in seeds for i, run in enumerate(runs)
           for point in grid]  # fmt: skip
    return Sweep(path, content["command"], common, [*settings], own)


def _find(name: str) -> Path:
    """The file; a sweep that the package ships goes by its bare name as well."""
    shipped = f"sweeps/{name.removesuffix('.yaml')}"
    mine = Path(name).is_file() or Path(f"{name}.yaml").is_file()
    return find_configuration(shipped if shipped in shipped_configurations() and not mine else name)


def _check_keys(path: Path, content: Mapping[str, Any]) -> None:
    unknown = [key for key in content if key not in KEYS]
    if "command" not in content and {"model", "data", "trainer", "experiment"} & content.keys():
        raise MetaLearningError(f"{path} is the configuration of one run, not a sweep: lightning-meta fit -c {path}")
    if unknown:
        near = difflib.get_close_matches(str(unknown[0]), KEYS, 1)
        hint = f"did you mean {near[0]}?" if near else f"it may hold {', '.join(KEYS)}"
        raise MetaLearningError(f"{path}: {unknown[0]} belongs to no sweep: {hint}")
    if content.get("command") not in COMMANDS:
        raise MetaLearningError(f"{path}: command is {content.get('command')!r}, expected one of {', '.join(COMMANDS)}")
    if not {"runs", "grid", "seeds", "search"} & content.keys():
        raise MetaLearningError(f"{path} says of no run what it is: give runs, grid, seeds or search")
    others = [key for key in ("runs", "grid") if key in content]
    if "search" in content and others:
        raise MetaLearningError(f"{path} holds both search and {others[0]}: make two sweeps of it")
    if "search" in content and content["command"] != "fit":
        raise MetaLearningError(f"{path}: command is {content['command']}, but a search has to fit")


def _arguments(path: Path, key: str, given: Any) -> list[str]:
    """A list of arguments, as on the command line."""
    if not isinstance(given, list) or any(isinstance(one, list | dict) or one is None for one in given):
        raise MetaLearningError(
            f"{path}: {key} is {given!r}, expected a list of arguments such as --trainer.max_steps=9"
        )
    return [one if isinstance(one, str) else json.dumps(one) for one in given]


def _grid(path: Path, grid: Any) -> list[list[str]]:
    """The arguments of every point."""
    example = "expected settings with lists of values, such as model.inner.steps: [1, 5]"
    if not isinstance(grid, dict) or not grid:
        raise MetaLearningError(f"{path}: grid is {grid!r}, {example}")
    for name, values in grid.items():
        if not isinstance(name, str) or name.startswith("-"):
            raise MetaLearningError(f"{path}: grid holds {name!r}, expected the name of a setting without dashes")
        if not isinstance(values, list) or not values:
            raise MetaLearningError(f"{path}: grid.{name} is {values!r}, expected a list of values")
    points = itertools.product(*([argument(name, value) for value in values] for name, values in grid.items()))
    return [list(point) for point in points]


def _seeds(path: Path, seeds: Any, common: Sequence[str], runs: Any) -> list[list[str]]:
    """The argument of every seed; none where the file gives no seeds."""
    if seeds is None:
        return [[]]
    numbers = list(range(seeds)) if isinstance(seeds, int) and not isinstance(seeds, bool) else seeds
    whole = isinstance(numbers, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in numbers)
    if not whole or not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise MetaLearningError(f"{path}: seeds is {seeds!r}, expected how many (3), or a list of them ([0, 1, 2])")
    given = [*common, *(one for run in runs if isinstance(run, list) for one in run if isinstance(one, str))]
    if any(one.partition("=")[0] == "--seed_everything" for one in given):
        raise MetaLearningError(f"{path} gives seeds, and --seed_everything as well: leave one of them out")
    return [[f"--seed_everything={seed}"] for seed in numbers]
