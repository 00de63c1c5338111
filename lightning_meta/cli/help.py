"""What ``--help`` prints: a subcommand's options on one screen, and a class's formula and settings."""

import argparse
import inspect
import re
import textwrap
from typing import Any

from jsonargparse import DefaultHelpFormatter
from pytorch_lightning.cli import LightningArgumentParser

from lightning_meta.cli.choices import known_classes

SUBCOMMAND = """usage: lightning-meta {name} -c NAME [--SETTING VALUE ...]

{description}

configuration:
  -c, --config NAME         a shipped configuration (`lightning-meta list configs`) or a YAML file of your own;
                            where several are given, later ones override earlier ones
  --print_config            print all settings as they would be used, and stop
  --SETTING VALUE           any setting of a configuration, such as --trainer.max_steps 1000, overrides it

run:
  --experiment NAME         folder of the run, below trainer.default_root_dir (default: {experiment})
  --run NAME                folder of the run below that of the experiment, where it goes on with its --ckpt_path
                            (default: version_0, version_1, ...)
  --seed_everything N       seed of the weights and of the tasks (default: {seed_everything})
  --ckpt_path FILE          checkpoint to {checkpoint_use}
  --ensemble N              number of best checkpoints whose outputs are averaged at test (default: {ensemble})
  --weights_only BOOL       whether the checkpoint may hold nothing but tensors and plain values

learner and data:
  --model CLASS             a method (`lightning-meta list methods`), or a class of your own as MODULE.CLASS
  --model.help CLASS        its formula and its settings, which are given as --model.SETTING VALUE
  --data CLASS              a data set (`lightning-meta list data`), or a class of your own
  --data.help CLASS         its settings, which are given as --data.SETTING VALUE

Lightning's Trainer and ModelCheckpoint:
  --trainer.SETTING VALUE
{trainer}
  --checkpoint.SETTING VALUE
{checkpoint}

Every setting may come from the environment, too: PL_{upper}__TRAINER__MAX_STEPS=1000.
"""

CHECK = """usage: lightning-meta check -c NAME [--SETTING VALUE ...]

Look for leaks in the data of a configuration: classes or pictures in two splits, queries that are in the support set,
labels that are uneven or in the order of the classes, tasks on two ranks. Prints what was compared and found; the exit
status is 0 without a leak, and 1 with one.

  -c, --config NAME         a shipped configuration (`lightning-meta list configs`) or a YAML file of your own
  --tasks N                 tasks of every split that are drawn, at least, where it has as many (default: {tasks})
  --SETTING VALUE           any setting of a configuration, such as --data.root DIR, overrides it
"""

SHIPPED = ", or a name of `lightning-meta list checkpoints`"
DESCRIPTIONS = {
    "fit": ("Meta-train a learner, then test its best checkpoint.", "go on from"),
    "validate": ("Evaluate a learner on the validation tasks.", f"evaluate{SHIPPED}"),
    "test": ("Evaluate a learner on the test tasks.", f"evaluate{SHIPPED}"),
    "predict": ("Write a learner's outputs on the test tasks.", f"predict with{SHIPPED}"),
}


def subcommand_help(name: str, parser: LightningArgumentParser) -> str:
    """The options of a subcommand of LightningCLI."""
    if name == "check":
        return CHECK.format(tasks=parser.get_defaults()["tasks"])
    description, checkpoint_use = DESCRIPTIONS[name]
    defaults = parser.get_defaults()
    names: dict[str, str] = {}
    for group in ("trainer", "checkpoint"):
        keys = ", ".join(key.partition(".")[2] for key in defaults.keys() if key.startswith(f"{group}."))  # noqa: SIM118
        names[group] = textwrap.fill(keys, 118, initial_indent=" " * 6, subsequent_indent=" " * 6)
    own = {key: defaults[key] for key in ("experiment", "seed_everything", "ensemble")}
    return SUBCOMMAND.format(
        name=name, upper=name.upper(), description=description, checkpoint_use=checkpoint_use, **names, **own
    )


class Formatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """jsonargparse's formatter, which otherwise lists every subclass that happens to be imported."""

    def add_argument(self, action: argparse.Action) -> None:
        """Leave out ``--KEY.help``, which the end of the message explains once."""
        if not action.dest.endswith(".help"):
            super().add_argument(action)

    def _get_help_string(self, action: argparse.Action) -> str:
        text, mark, _ = super()._get_help_string(action).partition(", known subclasses: ")
        names = known_classes(action.dest)
        return text + (f"; one of {', '.join(names)}" if names else "") + ")" * bool(mark)

    def _get_type_str(self, action: argparse.Action) -> str | None:
        text = super()._get_type_str(action)
        return text and re.sub(r"<class '([^']*)'>", r"\1", text)


class HelpfulParser(LightningArgumentParser):
    """A parser that prints short help, raises what is wrong, and takes a key by its full name only.

    Args:
        args: as for the base.
        subcommand_name: where the parser is that of a subcommand, whose help is written by hand.
        kwargs: as for the base.
    """

    def __init__(self, *args: Any, subcommand_name: str | None = None, **kwargs: Any) -> None:
        settings: dict[str, Any] = {"formatter_class": Formatter, "exit_on_error": False, "allow_abbrev": False}
        super().__init__(*args, **(settings | kwargs))
        self.subcommand_name = subcommand_name

    def add_class_arguments(
        self, theclass: type, nested_key: str | None = None, *args: Any, **kwargs: Any
    ) -> list[str]:
        """Also describe the class, where the parser was made by ``--KEY.help CLASS`` to show it."""
        added: list[str] = super().add_class_arguments(theclass, nested_key, *args, **kwargs)
        if match := re.match(r"Help for --.*\.help=(.*)", self.description or ""):
            self.usage = argparse.SUPPRESS
            docstring = re.split(r"\n(?:Args|Raises):\n", inspect.getdoc(theclass) or "")[0].rstrip()
            self.description = f"{match[1]}\n\n{docstring}"
            self.epilog = "Where a setting is a class, --SETTING.help CLASS shows the settings of that class."
            for group in [group for name, group in (self.groups or {}).items() if name == nested_key]:
                group.title = "settings"
        return added

    def add_function_arguments(
        self, function: Any, *args: Any, linked_targets: set[str] | None = None, **kwargs: Any
    ) -> list[str]:
        """Also take the arguments that a link fills in, which jsonargparse hands to functions as it does to classes."""
        added: list[str] = super().add_function_arguments(function, *args, **kwargs)
        for action in self._actions:
            action.required = action.required and action.dest not in (linked_targets or ())
        return added

    def format_help(self, *args: Any) -> str:
        """The help of a subcommand or of a class."""
        return subcommand_help(self.subcommand_name, self) if self.subcommand_name else super().format_help(*args)
