"""What the command line says of a mistake: the setting, its value, what was expected, and the nearest that exists.

jsonargparse reports a mistake as a tree of lines, one level for each class and each alternative of a type. These
functions find the line that says what is wrong, and the setting that it belongs to.
"""

import difflib
import inspect
import re
from collections.abc import Iterable
from importlib import import_module

from jsonargparse import ArgumentParser

from lightning_meta.cli.choices import known_classes
from lightning_meta.errors import MetaLearningError

KEY = re.compile(r'^Parser key "(?P<key>[^"]+)"|^--(?P<help>[\w.]+)\.help:')
OWNER = re.compile(r"^Problem with given class_path '(?P<path>[^']+)'")
UNKNOWN = re.compile(
    r"unrecognized arguments: (?P<argument>[^\s=]+)"
    r"|does not accept option '(?P<key>[^']+)'"
    r"|^Option '(?P<option>[^']+)' is not accepted"
)
REQUIRED = re.compile(r"^the following arguments are required: (.+)")
NO_CLASS = re.compile(r"Expected a dot import path string: (.+)")
NO_MODULE = re.compile(r"^No module named '(.+)'")
NO_ATTRIBUTE = re.compile(r"^module '(.+)' has no attribute '(.+)'")
NO_SUBCLASS = re.compile(
    r"^Import path does not correspond to a subclass of (\w+)|^Expected '.+' to be a subclass of <class '(\w+)'>"
)
SEVERAL = re.compile(r"^Several classes are called (?P<name>\w+): (?P<paths>.+)")
NOT_A_CLASS = re.compile(r"^Not a valid subclass of \w+\. Got value: (.*)|^Expected an import path .*, but got (.*)")
NO_GROUP = re.compile(r"^Unable to load config '(.*)'")
VALUE = re.compile(r"^Expected an? (.+?)\. Got value:?(.*)")
EXPECTED = re.compile(r"^Expected an? (?!instantiatable)(.+)")
BASE_CLASS = re.compile(r"^Not a valid subclass of \w+$|^Expected an instantiatable class, but (?:\S+ )?is abstract")
GIVEN = re.compile(r"^Given value: (?:NestedArg\(key='(?P<setting>[^']*)', val='(?P<nested>.*)'\)|(?P<plain>.*))")
FRAME = re.compile(
    r"Does not validate against|^Subtypes: |^Errors$|^Given value|Expected a path but|^Expected a <class 'None"
    r"|^Not of type Tensor"
)
CALLABLE = re.compile(r"Type .+ expects a function or a callable class: ")
OF_CLASS = re.compile(CALLABLE.pattern + r"(?P<said>.+?)\.+ Got value: Namespace\(class_path='(?P<path>[^']+)'.*")
DUMP = re.compile(r"\.+ Got value: Namespace\(.*")
LONGEST = 80  # characters of a value that are shown

CLASS_LISTS = {"model": "methods", "data": "data", "backbone": "backbones"}


def explain(message: str, subcommand: str, parser: ArgumentParser) -> MetaLearningError:
    """The mistake that a message of jsonargparse is about.

    Args:
        message: of one line or many.
        subcommand: whose arguments were parsed.
        parser: of the subcommand.
    """
    key, owner, owned = "", "", ""
    named = OF_CLASS.sub(r"\nProblem with given class_path '\g<path>'\n\g<said>", message)
    parts = CALLABLE.sub("\n", DUMP.sub("", named)).splitlines()
    lines = [line.lstrip(" -").rstrip(" :") if "--" not in line else line.strip() for line in parts]
    values = [match for line in lines if (match := GIVEN.search(line))]
    given = _shown(values[0]["nested"] or values[0]["plain"] or "") if values else ""
    for number, line in enumerate(lines):
        if match := KEY.search(line):
            part = (match["key"] or match["help"]).removeprefix(f"{subcommand}.")
            key = part if key == part else f"{key}.{part}".lstrip(".")
            line = line[match.end() :].strip(" :")
        if match := OWNER.search(line):
            owner, owned = match["path"], key
        if BASE_CLASS.search(line) or (owner == "torch.nn.Module" and UNKNOWN.search(line)):
            return _no_class(key, values[-1]["setting"] if values else None, given)
        if match := UNKNOWN.search(line):
            argument = match["argument"] or f"--{match['key'] or match['option']}"
            if key.endswith(f".{match['option']}"):  # which the class that was given takes, and its base class does not
                lines = lines[:number]
                break
            return _unknown_key(argument, key, owner, subcommand, parser)
        if match := REQUIRED.search(line):
            who = owner if owned == key else key  # the class, unless it is that of a setting further out
            return _missing_key(match[1].replace(f"{subcommand}.", ""), key, who, subcommand)
        if match := NO_CLASS.search(line):
            return _unknown_class(match[1], key)
        if match := SEVERAL.search(line):
            return MetaLearningError(
                f"{key} is {match['name']}, as several classes are called: give one of {match['paths']}"
            )
        if match := NO_MODULE.search(line) or NO_ATTRIBUTE.search(line):
            what = f"{key} is {owner}, which" if owner else f"{key}: the class"
            return MetaLearningError(
                f"{what} cannot be imported: {match[0]} (it is searched for in the current folder and among the "
                "installed packages)"
            )
        if match := NO_SUBCLASS.search(line):
            return MetaLearningError(f"{key} is {given or owner}, which is not a subclass of {match[1] or match[2]}")
        if match := NOT_A_CLASS.search(line):
            return MetaLearningError(f"{key} is {_shown(match[1] or match[2])}, expected the name of a class")
        if match := NO_GROUP.search(line):
            return MetaLearningError(f"{key} is {_shown(match[1])}, expected settings such as --{key}.NAME=VALUE")
        if match := VALUE.search(line):
            return MetaLearningError(f"{key} is {_shown(match[2].strip())}, expected {_type(match[1])}")
    telling = [line for line in lines if line and not any(frame.search(line) for frame in (KEY, OWNER, FRAME))]
    telling = list(dict.fromkeys(telling))
    expected = [_type(match[1]) for line in telling if (match := EXPECTED.search(line))]
    if values and len(expected) == len(telling) > 0:
        return MetaLearningError(f"{key} is {given}, expected {' or '.join(expected)}")
    return MetaLearningError(": ".join(filter(None, [key, owner, " ".join((telling or lines)[:2])])))


def _unknown_key(argument: str, key: str, owner: str, subcommand: str, parser: ArgumentParser) -> MetaLearningError:
    """A setting that does not exist, in a class or in the parser itself."""
    if not argument.startswith("-"):
        return MetaLearningError(f"{argument} belongs to no option: a setting is given as --KEY VALUE or --KEY=VALUE")
    if not argument.strip("-"):
        return MetaLearningError(f"{argument} names no setting: a setting is given as --KEY VALUE or --KEY=VALUE")
    name, known, place, everything = argument.lstrip("-"), _keys(parser), "", "--help"
    if owner:
        kind = owner.rpartition(".")[2]
        known, place, everything = _settings(owner), f" of {kind}", f"--{key}.help {kind}"
    elif any(setting.startswith(f"{name.partition('.')[0]}.") for setting in known):
        key, _, name = name.partition(".")  # the group is right
        known = [setting.partition(".")[2] for setting in known if setting.startswith(f"{key}.")]
    near = difflib.get_close_matches(name, known, 1)
    near = near or difflib.get_close_matches(
        name.partition(".")[0], {setting.partition(".")[0] for setting in known}, 1
    )
    wrong, *near = (f"{key}.{name}".lstrip(".") for name in (name, *near))
    hint = f"did you mean {near[0]}?" if near else f"`lightning-meta {subcommand} {everything}` shows all"
    if owner.startswith("torch.") and owner.endswith(".ReduceLROnPlateau"):
        hint = "take pytorch_lightning.cli.ReduceLROnPlateau, which has a monitor"
    return MetaLearningError(f"{wrong} is not a setting{place}: {hint}")


def _missing_key(names: str, key: str, who: str, subcommand: str) -> MetaLearningError:
    """Settings without a default that were not given to a class, which is named by its path or by its setting."""
    if who:
        needed = " and ".join(f"--{key}.{name}" for name in names.split(", "))
        return MetaLearningError(f"{who if who == key else who.rpartition('.')[2]} needs {needed}")
    needed = " and ".join(f"--{name}" for name in sorted(names.split(", "), reverse=True))
    return MetaLearningError(
        f"{needed} must be given, or a configuration that holds them: lightning-meta {subcommand} -c NAME "
        "(`lightning-meta list configs`)"
    )


def _no_class(key: str, setting: str | None, given: str) -> MetaLearningError:
    """A setting of a class that was not given, or the base class in its place."""
    if setting is None:
        return MetaLearningError(f"{key} is {given}, which stands for all of its kind: give one of them")
    return MetaLearningError(
        f"{key.partition('.')[0]}.{setting} is given without a class: give --{key} CLASS before it, or a configuration "
        "that holds one, -c NAME"
    )


def _unknown_class(name: str, key: str) -> MetaLearningError:
    """A class name that nothing imported goes by."""
    near = difflib.get_close_matches(name, known_classes(key), 1)
    what = CLASS_LISTS.get(key.rpartition(".")[2])
    everything = f"`lightning-meta list {what}` shows all, and " if what else ""
    hint = f"did you mean {near[0]}?" if near else f"{everything}a class of your own is given as MODULE.CLASS"
    return MetaLearningError(f"{key} is {name}, which is not a known class: {hint}")


def _keys(parser: ArgumentParser) -> list[str]:
    """The settings of a subcommand, those of its default classes included."""
    return ["config", "print_config", "help", "model", "data", *_plain(parser.get_defaults().keys())]


def _settings(class_path: str) -> list[str]:
    """The settings of a class and of the classes that it holds by default."""
    module, _, name = class_path.rpartition(".")
    parser, kind = ArgumentParser(), getattr(import_module(module), name)
    add = parser.add_class_arguments if inspect.isclass(kind) else parser.add_function_arguments
    add(kind, fail_untyped=False)
    return _plain(parser.get_defaults().keys())


def _plain(keys: Iterable[str]) -> list[str]:
    """Keys as they are given on the command line, where ``init_args`` is left out."""
    return [key.replace(".init_args", "") for key in keys if not key.endswith(".class_path")]


def _shown(value: str) -> str:
    """A value as a message shows it."""
    value = value if value.isprintable() else repr(value)
    return f"{value[:LONGEST]} ..." if len(value) > LONGEST else value or "empty"


def _type(text: str) -> str:
    """The name of a type without Python's frame around it."""
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    choices = re.search(r"Literal\[(.*)\]", text)
    return choices[1].replace("'", "").replace(", ", " or ") if choices else text
