"""Short names of classes that more than one library has."""

import sys
from typing import Any

from jsonargparse import _typehints

_PREFERRED = ("lightning_meta.", "torch.nn.", "torch.optim.", "torch.", "torchvision.", "pytorch_lightning.")


def choose_class(name: str, paths: list[str]) -> str:
    """The class that a short name stands for: this package's before PyTorch's, and these before other libraries'.

    Args:
        name: without a dot.
        paths: of all classes that have it.

    Raises:
        ValueError: a class of a person's own has the name, too, or two of one library; the message names all.

    >>> choose_class("MLP", ["torchvision.ops.MLP", "lightning_meta.MLP"])
    'lightning_meta.MLP'
    """
    if all(path.startswith(_PREFERRED) or _is_installed(path) for path in paths):
        for library in _PREFERRED:
            found = [path for path in paths if path.startswith(library)]
            if len(found) == 1:
                return found[0]
            if found:
                break
    raise ValueError(f"Several classes are called {name}: {', '.join(sorted(paths))}")


def _is_installed(path: str) -> bool:
    """Whether a class is of an installed package, and not of a person's own file."""
    return "site-packages" in str(getattr(sys.modules.get(path.partition(".")[0]), "__file__", ""))


def prefer_own_classes() -> None:
    """Let jsonargparse take what `choose_class` says where it would refuse a name that several classes have.

    It has no setting for this: what it calls is replaced, once.
    """
    if _typehints.resolve_class_path_by_name is not _resolve:
        _typehints.resolve_class_path_by_name = _resolve


_original = _typehints.resolve_class_path_by_name


def _resolve(cls: Any, name: str) -> str:
    if "." not in name and not isinstance(cls, tuple):
        paths = [path for path in _typehints.get_all_subclass_paths(cls) if path.rpartition(".")[2] == name]
        if len(paths) > 1:
            return choose_class(name, paths)
    resolved: str = _original(cls, name)
    return resolved
