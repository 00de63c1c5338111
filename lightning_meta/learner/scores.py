"""What is measured on episodes, and how it is logged: the part of a learner that no algorithm changes."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lightning_meta.episode import Episode, Predictions
from lightning_meta.metrics import Interval, TaskMean, accuracy, confusion


class EpisodeScores(LightningModule, ABC):
    """Scores predictions before adaptation and after every inner step, over all tasks of all ranks.

    Args:
        loss: function of (outputs, targets, reduction=...).
        steps: inner steps in evaluation.
    """

    def __init__(self, loss: Callable[..., Tensor], steps: int) -> None:
        super().__init__()
        self.loss = loss
        self.intervals: dict[str, Interval] = {}
        self.confusion: Tensor | None = None  # of the first task's queries after the last step, (ways, ways)
        names = [f"{part}_{kind}" for kind in ("loss", "accuracy") for part in Predictions._fields]
        self.task_means = nn.ModuleDict({name: TaskMean(steps + 1) for name in names})

    @abstractmethod
    def all_predictions(self, episode: Episode) -> Predictions:
        """Outputs for every task, each tensor (tasks, steps + 1, rows, outputs)."""

    def log_training(self, loss: Tensor, episode: Episode) -> None:
        """The outer loss, and support and query accuracy (or loss) before and after the inner steps of training."""
        self.log("train/outer_loss", loss, prog_bar=True, sync_dist=True)
        for name, values in self.score(self.all_predictions(episode), episode).items():
            self.log(f"train/{name}/before", values[:, 0].mean(), sync_dist=True)
            self.log(f"train/{name}/after", values[:, -1].mean(), sync_dist=True)

    def score(self, predictions: Predictions, episode: Episode) -> dict[str, Tensor]:
        """Loss, and for classes accuracy, of every task after every inner step, each (tasks, steps + 1)."""
        values: dict[str, Tensor] = {}
        for part, outputs in predictions._asdict().items():
            targets = episode.support_y if part == "support" else episode.query_y
            if targets.shape[1] == 0:  # training episodes may come without queries
                continue
            targets = targets[:, None].expand(*outputs.shape[:3], *targets.shape[2:])
            losses = self.loss(outputs.flatten(0, 2), targets.flatten(0, 2), reduction="none")
            values[f"{part}_loss"] = losses.view(*outputs.shape[:2], -1).mean(-1)
            if not targets.is_floating_point():
                values[f"{part}_accuracy"] = accuracy(outputs, targets)
        return values

    def _evaluation_step(self, episode: Episode) -> None:
        values: dict[str, Tensor] = {}
        if len(episode.number):  # the list may have no task left for this rank
            with torch.inference_mode(False):  # adaptation needs gradients, which tensors made under inference refuse
                episode = Episode(*(tensor.clone() for tensor in episode))
                predictions = self.all_predictions(episode)
                values = self.score(predictions, episode)
            if episode.number[0] == 0:
                outputs, targets = predictions.query[0, -1], episode.query_y[0]
                classified = not targets.is_floating_point() and bool(outputs.isfinite().all())
                self.confusion = confusion(outputs, targets) if classified else None
        for name in self.task_means:
            metric = self._task_mean(name)
            metric.update(values.get(name, metric.total.new_zeros(0, len(metric.total))))

    def _task_mean(self, name: str) -> TaskMean:
        metric = self.task_means[name]
        assert isinstance(metric, TaskMean)
        return metric

    def _evaluation_end(self, stage: str) -> None:
        intervals = {name: self._task_mean(name).interval() for name in self.task_means}
        self.intervals = {name: interval for name, interval in intervals.items() if interval.tasks}
        for name, interval in self.intervals.items():
            kind, protocol = name.replace("_nontransductive", ""), "_nontransductive" * ("nontransductive" in name)
            steps = {f"{stage}/{kind}/step_{k}{protocol}": mean for k, mean in enumerate(interval.mean.float())}
            self.log_dict(steps, sync_dist=True)
            if name in ("query_loss", "query_accuracy"):
                self.log(
                    f"{stage}_{name.removeprefix('query_')}", interval.mean[-1].float(), prog_bar=True, sync_dist=True
                )
            self._task_mean(name).reset()

    def validation_step(self, episode: Episode, batch_idx: int) -> None:
        """Adapt to the tasks and score them."""
        self._evaluation_step(episode)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all validation tasks of all ranks."""
        self._evaluation_end("val")

    def test_step(self, episode: Episode, batch_idx: int) -> None:
        """Adapt to the tasks and score them."""
        self._evaluation_step(episode)

    def on_test_epoch_end(self) -> None:
        """Log the means over all test tasks of all ranks."""
        self._evaluation_end("test")

    def predict_step(self, episode: Episode, batch_idx: int) -> dict[str, Tensor]:
        """Outputs for the queries after the last inner step, with their targets, each (tasks, queries, ...)."""
        if len(episode.number) == 0:  # the list has no task left for this rank
            return {}
        with torch.inference_mode(False):
            outputs = self.all_predictions(Episode(*(tensor.clone() for tensor in episode)))
        return {"number": episode.number, "outputs": outputs.query[:, -1], "targets": episode.query_y}
