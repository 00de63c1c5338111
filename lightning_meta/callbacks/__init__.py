"""Lightning callbacks: results, figures, predictions, ensembles, throughput, joining of workers."""

from lightning_meta.callbacks.ensemble import Ensemble
from lightning_meta.callbacks.figures import Figures
from lightning_meta.callbacks.join_weights import JoinWeights
from lightning_meta.callbacks.joined_workers import JoinedWorkers
from lightning_meta.callbacks.predictions import PredictionFile
from lightning_meta.callbacks.results import Results
from lightning_meta.callbacks.throughput import TasksPerSecond
from lightning_meta.callbacks.weight_generators import (
    ArithmeticMean,
    LossMedian,
    LossMovingAverage,
    LossWeightedMean,
    WeightGenerator,
)

__all__ = [
    "ArithmeticMean",
    "Ensemble",
    "Figures",
    "JoinWeights",
    "JoinedWorkers",
    "LossMedian",
    "LossMovingAverage",
    "LossWeightedMean",
    "PredictionFile",
    "Results",
    "TasksPerSecond",
    "WeightGenerator",
]
