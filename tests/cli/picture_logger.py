"""A logger of a person's own that takes pictures, as that of Weights & Biases does."""

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

from pytorch_lightning.loggers import Logger


class PictureLogger(Logger):
    """Keeps everything in lists; its ``experiment`` has none of TensorBoard's functions."""

    name, version = "pictures", "0"

    def __init__(self) -> None:
        super().__init__()
        self.experiment = SimpleNamespace(log=self.log_metrics)
        self.metrics: list[dict[str, float]] = []
        self.images: list[str] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics.append(metrics)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *more: Any, **named: Any) -> None:
        """Nothing to keep."""

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        self.images.append(key)
