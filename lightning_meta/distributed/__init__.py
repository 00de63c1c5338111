"""Workers that train copies of their own and are joined (distributed MAML, Soulier 2020)."""

from lightning_meta.distributed.join_weights import JoinWeights
from lightning_meta.distributed.local_workers import LocalWorkers
from lightning_meta.distributed.weight_generators import (
    ArithmeticMean,
    LossMedian,
    LossMovingAverage,
    LossWeightedMean,
    WeightGenerator,
)

__all__ = [
    "ArithmeticMean",
    "JoinWeights",
    "LocalWorkers",
    "LossMedian",
    "LossMovingAverage",
    "LossWeightedMean",
    "WeightGenerator",
]
