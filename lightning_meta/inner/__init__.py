"""Inner rules and the loop that runs them."""

from lightning_meta.inner.layer_rates import LayerRates
from lightning_meta.inner.loop import InnerLoop, scored_steps
from lightning_meta.inner.lstm import LSTMOptimizer
from lightning_meta.inner.meta_sgd import MetaSGD
from lightning_meta.inner.optimizers import SGD, Adam, InnerOptimizer
from lightning_meta.inner.unroll import last, unroll

__all__ = [
    "SGD",
    "Adam",
    "InnerLoop",
    "InnerOptimizer",
    "LSTMOptimizer",
    "LayerRates",
    "MetaSGD",
    "last",
    "scored_steps",
    "unroll",
]
