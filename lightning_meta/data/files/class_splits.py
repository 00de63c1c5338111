"""The classes of every split, as a person names them: in a file, or in the configuration itself."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_meta.bounded_files import load_yaml, read_text
from lightning_meta.episode import Split
from lightning_meta.errors import MetaLearningError

SPLIT_NAMES: dict[str, Split] = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def splits_setting(split_file: str | None, splits: Mapping[str, Any] | None) -> str | None:
    """What names the classes of every split, for messages: the file, ``data.splits``, or None where neither does.

    Raises:
        MetaLearningError: both do.
    """
    if split_file is not None and splits is not None:
        raise MetaLearningError(
            f"data.split_file is {split_file}, but data.splits names the classes already: leave one of them out"
        )
    return "data.splits" if splits is not None else split_file


def named_splits(
    split_file: str | None, splits: Mapping[str, Any] | None, classes: Collection[str], held: str
) -> dict[Split, list[str]]:
    """The classes of every split, sorted, from a file or from a mapping.

    Args:
        split_file: JSON, or YAML by its suffix, such as ``{"train": ["ash"], "val": ["elm"], "test": ["oak"]}``, or
            text with lines such as ``train ash``. The name of a split instead of a list, as in ``"test": "train"``,
            gives a split the classes of that one.
        splits: likewise, where there is no file; lists may be sets, tuples or arrays.
        classes: that there are.
        held: what holds them, for messages, such as ``data.y holds``.

    Raises:
        MetaLearningError: the file cannot be read, a class is named twice or does not exist, or splits refer to each
            other in a circle.
    """
    setting = "data.splits" if splits is not None else f"data.split_file is {split_file}, which"
    try:
        named = _read(Path(str(split_file)).expanduser()) if splits is None else splits
        lists, same, keys = _lists(named)
    except (MetaLearningError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error).removeprefix(f"{split_file} cannot be read: ")
        reason = f"unexpected split {error}" if isinstance(error, KeyError) else reason
        form = "JSON" if splits is None else "lists of class names"
        lines = ", or lines such as `train ash`" if splits is None else ""
        raise MetaLearningError(
            f"{setting} cannot be read ({reason}): expected {form} such as "
            f'{{"train": ["ash", "elm"], "val": [], "test": ["oak"]}}{lines}'
        ) from error
    seen: set[str] = set()
    for name in (name for names in lists.values() for name in names):
        if name in seen:
            raise MetaLearningError(
                f"{setting} names class {name} twice: name it once, or, to test on the classes that are trained on, "
                'write "test": "train"'
            )
        seen.add(name)
    if unknown := sorted(seen - set(classes)):
        raise MetaLearningError(f"{setting} names {few(unknown)}, but {held} {few(sorted(classes))}: name those")
    found: dict[Split, list[str]] = {}
    for split in dict.fromkeys(SPLIT_NAMES.values()):
        path = [split]
        while path[-1] in same:
            path.append(same[path[-1]])
            if path[-1] in path[:-1]:
                circle = " is ".join(keys[step] for step in path)
                raise MetaLearningError(
                    f"{setting} gives splits each other's classes ({circle}): give one of them a list"
                )
        found[split] = sorted(lists.get(path[-1], []))
    return found


def few(names: Sequence[str]) -> str:
    """Up to three names, and how many more there are."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _read(path: Path) -> Any:
    text = read_text(path)
    if path.suffix in (".yaml", ".yml"):
        return load_yaml(text, str(path))
    return json.loads(text, object_pairs_hook=_once) if text.lstrip().startswith("{") else _lines(text)


def _lists(named: Any) -> tuple[dict[Split, list[str]], dict[Split, Split], dict[Split, str]]:
    """The class names of every split with a list, for each other one the split whose classes it has, and their keys."""
    if not isinstance(named, Mapping):
        raise TypeError(f"{type(named).__name__} in the place of splits")
    keys: dict[Split, str] = {}
    for key in named:
        if SPLIT_NAMES[key] in keys:
            raise ValueError(f"{keys[SPLIT_NAMES[key]]} and {key} are one split")
        keys[SPLIT_NAMES[key]] = key
    same = {split: SPLIT_NAMES[named[key]] for split, key in keys.items() if isinstance(named[key], str)}
    return {split: _class_names(key, named[key]) for split, key in keys.items() if split not in same}, same, keys


def _class_names(key: str, names: object) -> list[str]:
    if not isinstance(names, Collection) or isinstance(names, bytes | Mapping):
        raise TypeError(f"{key} is {'null' if names is None else repr(names):.80}, expected a list")
    for name in names:
        if not isinstance(name, str) or not name:
            remedy = "" if isinstance(name, Collection) else ": write it in quotation marks"
            raise TypeError(f"{name!r:.80} is not the name of a class{remedy}")
    return [str.__str__(name) for name in names]  # of a member of an enumeration, its value


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The pairs as a dictionary; of two for one split, the first would be lost."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the split {twice[0]} stands there twice")
    return dict(pairs)


def _lines(text: str) -> dict[str, list[str]]:
    """Class names by split, of lines that hold a split and a class."""
    named: dict[str, list[str]] = {}
    for line in filter(str.strip, text.splitlines()):
        split, *name = line.split(maxsplit=1)
        named.setdefault(split, []).extend(part.strip() for part in name or [""])
    return named
