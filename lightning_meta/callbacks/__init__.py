"""Lightning callbacks: results, figures, TensorBoard's pages, predictions, ensembles, throughput."""

from lightning_meta.callbacks.board import Board
from lightning_meta.callbacks.ensemble import Ensemble
from lightning_meta.callbacks.figures import Figures
from lightning_meta.callbacks.predictions import PredictionFile
from lightning_meta.callbacks.results import Results
from lightning_meta.callbacks.throughput import TasksPerSecond

__all__ = [
    "Board",
    "Ensemble",
    "Figures",
    "PredictionFile",
    "Results",
    "TasksPerSecond",
]
