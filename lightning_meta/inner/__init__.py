"""The functional core: inner optimizers, the inner loop, and the map over tasks. Knows torch and parameters only."""

from lightning_meta.inner.adapt import adapt, last
from lightning_meta.inner.compiled import Compiled, out_of_memory
from lightning_meta.inner.conjugate_gradient import conjugate_gradient
from lightning_meta.inner.convolution import RoutedConvolutions
from lightning_meta.inner.layer_rates import LayerRates
from lightning_meta.inner.loop import InnerLoop
from lightning_meta.inner.lstm import LSTMOptimizer
from lightning_meta.inner.mapping import (
    MetaGradient,
    chunk_gradient,
    map_tasks,
    meta_gradient,
    with_gradient,
)
from lightning_meta.inner.meta_sgd import MetaSGD
from lightning_meta.inner.optimizers import SGD, Adam, InnerOptimizer

__all__ = [
    "SGD",
    "Adam",
    "Compiled",
    "InnerLoop",
    "InnerOptimizer",
    "LSTMOptimizer",
    "LayerRates",
    "MetaGradient",
    "MetaSGD",
    "RoutedConvolutions",
    "adapt",
    "chunk_gradient",
    "conjugate_gradient",
    "last",
    "map_tasks",
    "meta_gradient",
    "out_of_memory",
    "with_gradient",
]
