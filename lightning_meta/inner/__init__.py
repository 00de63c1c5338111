"""The functional core: inner optimizers, the inner loop, and the map over tasks. Knows torch and parameters only."""

from lightning_meta.inner.adapt import adapt, last
from lightning_meta.inner.loop import InnerLoop
from lightning_meta.inner.mapping import MetaGradient, map_tasks, meta_gradient, with_gradient
from lightning_meta.inner.optimizers import SGD, Adam, InnerOptimizer

__all__ = [
    "SGD",
    "Adam",
    "InnerLoop",
    "InnerOptimizer",
    "MetaGradient",
    "adapt",
    "last",
    "map_tasks",
    "meta_gradient",
    "with_gradient",
]
