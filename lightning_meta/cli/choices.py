"""The short names that a setting which is a class may take."""

from collections.abc import Callable

from torch import optim
from torch.optim import lr_scheduler

from lightning_meta import inner
from lightning_meta.cli.listing import list_backbones, list_data, list_methods


def _subclasses(module: object, base: type) -> list[str]:
    """Names of the subclasses of a class in a module, without the class itself."""
    members = {name: kind for name, kind in vars(module).items() if isinstance(kind, type) and name[0] != "_"}
    return sorted(name for name, kind in members.items() if issubclass(kind, base) and kind is not base)


CHOICES: dict[str, Callable[[], list[str]]] = {  # by the end of a setting's key; the first that fits
    "model": lambda: [name for name, *_ in list_methods()],
    "data": lambda: [name for name, *_ in list_data()],
    "backbone": lambda: [name for name, *_ in list_backbones()],
    "inner.optimizer": lambda: _subclasses(inner, inner.InnerOptimizer),
    "optimizer": lambda: _subclasses(optim, optim.Optimizer),
    "lr_scheduler": lambda: _subclasses(lr_scheduler, lr_scheduler.LRScheduler),
}


def known_classes(key: str) -> list[str]:
    """Names that the package knows for a setting; none where any class path is expected.

    Args:
        key: the setting, such as ``model.inner.optimizer``.
    """
    return next((names() for end, names in CHOICES.items() if f".{key}".endswith(f".{end}")), [])
