"""Lightning callbacks: results, figures, throughput."""

from lightning_meta.callbacks.figures import Figures
from lightning_meta.callbacks.predictions import PredictionFile
from lightning_meta.callbacks.results import Results
from lightning_meta.callbacks.throughput import TasksPerSecond

__all__ = ["Figures", "PredictionFile", "Results", "TasksPerSecond"]
