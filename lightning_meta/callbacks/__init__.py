"""Lightning callbacks: results, figures, predictions, ensembles, throughput."""

from lightning_meta.callbacks.ensemble import Ensemble
from lightning_meta.callbacks.figures import Figures
from lightning_meta.callbacks.predictions import PredictionFile
from lightning_meta.callbacks.results import Results
from lightning_meta.callbacks.throughput import TasksPerSecond

__all__ = [
    "Ensemble",
    "Figures",
    "PredictionFile",
    "Results",
    "TasksPerSecond",
]
