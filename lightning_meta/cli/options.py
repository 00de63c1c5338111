"""Options of the command line that are more than one value."""

import difflib
from collections.abc import Sequence
from itertools import islice
from typing import Any

from jsonargparse import ActionConfigFile
from yaml import YAMLError

from lightning_meta.cli import seeds
from lightning_meta.cli.bounded_values import load
from lightning_meta.cli.configurations import find_configuration, read_configuration
from lightning_meta.errors import MetaLearningError


class ConfigurationOption(ActionConfigFile):
    """The option ``-c``: a file, or the name of a shipped configuration."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Merge the file into the settings so far."""
        if values.lstrip().startswith("{"):  # settings themselves
            settings = _inline(values)
        else:
            path = find_configuration(values)
            settings, values = read_configuration(path), str(path)
            if not isinstance(settings, dict):  # whose errors jsonargparse reports without the file
                raise MetaLearningError(f"{path} holds no settings, expected lines such as `experiment: NAME`")
            if "command" in settings:
                raise MetaLearningError(
                    f"{path} is a sweep, not the configuration of one run: lightning-meta sweep {path}"
                )
        seeds.check_settings(settings)
        super().__call__(parser, cfg, values, option_string)


def configurations_first(args: Sequence[str]) -> list[str]:
    """The same arguments with the configurations in front: settings override them wherever they stand.

    Raises:
        MetaLearningError: an option is nearly called ``config``; settings of the classes that it holds would be blamed
            first.
    """
    configurations: list[str] = []
    others: list[str] = []
    rest = iter(args)
    for argument in rest:
        option = argument.partition("=")[0]
        if _is_nearly_config(option):
            raise MetaLearningError(f"{option} is not an option: did you mean --config?")
        if argument in ("-c", "--config"):
            configurations += [argument, *islice(rest, 1)]
        elif argument.startswith("--config=") or (argument.startswith("-c") and len(argument) > 2):
            configurations.append(argument)
        else:
            others.append(argument)
    return [*configurations, *others]


def _is_nearly_config(option: str) -> bool:
    """Whether an option is --config misspelt or abbreviated; the letters after -c may be a file."""
    if not option.startswith("--"):
        return option == "-C" or (len(option) > 2 and "-config".startswith(option))
    name = option[2:].lower()
    if name[:1] != "c" or option == "--config":
        return False
    return "config".startswith(name) or bool(difflib.get_close_matches("config", [name]))


def _inline(values: str) -> Any:
    """Settings on the command line themselves; jsonargparse says what is wrong with them."""
    try:
        return load(values)
    except YAMLError:
        return None
