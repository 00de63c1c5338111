"""Settings of all data modules: declared once, known to the command line with types, defaults and help."""

import dataclasses
import inspect
from typing import Any

import jsonargparse
import pytest
import torch

from lightning_meta import data
from lightning_meta.cli import main
from lightning_meta.data import EpisodeDataModule, GlyphEpisodes
from lightning_meta.errors import MetaLearningError

STREAM = {"meta_batch_size", "validation_tasks", "test_tasks", "seed", "num_workers"}
TASKS = {"ways", "shots", "queries", "train_shots", "train_queries"}
MODULES = [
    module
    for module in (getattr(data, name) for name in data.__all__)
    if issubclass(module, EpisodeDataModule) and not inspect.isabstract(module)
]


class OwnDefaults(GlyphEpisodes):
    """A person's data module, with a setting of its own and another default.

    Args:
        level: a setting of its own.
    """

    def __init__(self, level: int = 7, ways: int = 3, **settings: Any) -> None:
        super().__init__(ways=ways, **settings)
        self.level = level


@dataclasses.dataclass(kw_only=True, eq=False)
class OwnFields(GlyphEpisodes):
    """A person's data module, with a setting of its own and another default.

    Args:
        level: a setting of its own.
    """

    level: int = 7
    ways: int = 3


class OwnSettings(GlyphEpisodes):
    """A person's data module that takes all settings as they come."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)


def parser_of(module: type[EpisodeDataModule]) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(module, "data")
    return parser


@pytest.mark.parametrize("module", [*MODULES, OwnDefaults, OwnFields, OwnSettings])
def test_every_setting_has_its_help(module: type[EpisodeDataModule]) -> None:
    actions = [action for action in parser_of(module)._actions if action.dest.startswith("data.")]
    assert {action.dest.removeprefix("data.") for action in actions} >= STREAM
    assert [action.dest for action in actions if not action.help] == []


@pytest.mark.parametrize("module", MODULES)
def test_settings_are_taken_by_keyword_alone(module: type[EpisodeDataModule]) -> None:
    parameters = inspect.signature(module).parameters
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert parameters.keys() >= (STREAM if module.__name__.startswith(("Nav", "Quad")) else STREAM | TASKS - {"ways"})


@pytest.mark.parametrize("module", [OwnDefaults, OwnFields])
def test_subclasses_inherit_settings_with_their_defaults(module: type[EpisodeDataModule]) -> None:
    parser = parser_of(module)
    given = parser.parse_args(["--data.level=2", "--data.drawings=6", "--data.train_shots=4"])
    made = parser.instantiate_classes(given).data
    assert (made.level, made.ways, made.drawings, made.shots_in("train"), made.shots_in("test")) == (2, 3, 6, 4, 1)
    assert (made.test_tasks, made.outputs) == (600, 3)
    assert made.draw("test", torch.arange(2)).support_x.shape == (2, 3, 1, 28, 28)


def test_settings_are_handed_on_and_checked() -> None:
    assert (OwnSettings(ways=4).ways, OwnSettings().ways) == (4, 5)
    with pytest.raises(MetaLearningError, match="data.ways is 0"):
        OwnSettings(ways=0)
    with pytest.raises(TypeError, match="wayz"):
        OwnSettings(wayz=3)


def test_help_of_a_data_set_names_inherited_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--data.help", "OmniglotEpisodes"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--data.ways WAYS classes in a task. (type: int, default: 5)" in shown
    assert "--data.ink {0,1} value of ink; the background has the other. (type: Literal[0, 1], default: 1)" in shown
    assert "Finn et al.). (type: Literal['none', 'classes', 'tasks'], default: none)" in shown
