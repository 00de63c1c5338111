"""What is measured of predictions, and its means over the tasks of an evaluation."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lightning_meta.episode import Episode, Predictions
from lightning_meta.learner.task_table import TaskTable
from lightning_meta.metrics import Interval, TaskMean, accuracy, confusion

# Logged as val_accuracy, val_accuracy_nontransductive, ... after the last step, for whatever monitors one.
_HEADLINES = {
    f"query{protocol}_{kind}": f"{kind}{protocol}"
    for kind in ("loss", "accuracy")
    for protocol in ("", "_nontransductive")
}


class EpisodeScores:
    """Loss and accuracy of every task after some of its inner steps, averaged over all tasks and ranks.

    Args:
        steps: inner steps after which an evaluation is scored, from 0 to all of them.
        vectorised: whether the loss is mapped over tasks by ``torch.func.vmap``.

    Attributes:
        intervals: means over the tasks of the last evaluation, with their intervals, by name.
        confusion: of the first task's queries after the last inner step, (ways, ways); None where it has none.
        task_table: of the single tasks of the last evaluation, where `keep_tasks` asked for it; else None.
    """

    def __init__(self, steps: list[int], vectorised: bool = True) -> None:
        self._vectorised, self.steps = vectorised, steps
        self.intervals: dict[str, Interval] = {}
        self.confusion: Tensor | None = None
        self.task_table: TaskTable | None = None
        names = [f"{part}_{kind}" for kind in ("loss", "accuracy") for part in Predictions._fields]
        # Not modules of the learner, whose parts are looked through at every meta-step.
        self._means = {name: TaskMean(steps) for name in names}

    def keep_tasks(self, keep: bool) -> None:
        """Whether the next evaluation leaves a `task_table`; what the last one left is dropped."""
        self.task_table = TaskTable() if keep else None

    def score(self, loss: Callable[..., Tensor], predictions: Predictions, episode: Episode) -> dict[str, Tensor]:
        """Loss, and for classes accuracy, of every task after every scored step, each (tasks, scored steps)."""
        values: dict[str, Tensor] = {}
        mean_loss = partial(loss, reduction="mean")  # by its own weights, where it weighs classes
        for part, outputs in predictions._asdict().items():
            targets = episode.support_y if part == "support" else episode.query_y
            if targets.shape[1] == 0:  # training episodes may come without queries
                continue
            targets = targets[:, None].expand(*outputs.shape[:3], *targets.shape[2:])
            rows = outputs.flatten(0, 1), targets.flatten(0, 1)
            losses = torch.func.vmap(mean_loss)(*rows) if self._vectorised else torch.stack([*map(mean_loss, *rows)])
            values[f"{part}_loss"] = losses.view(outputs.shape[:2])
            if not targets.is_floating_point():
                values[f"{part}_accuracy"] = accuracy(outputs, targets)
        return values

    def of_training(self, loss: Callable[..., Tensor], predictions: Predictions, episode: Episode) -> dict[str, Tensor]:
        """Means over the tasks of a meta-step before and after its inner steps, named as `finish` names them."""
        values = self.score(loss, predictions, episode)
        return {
            _name("train", name, step): means[place]
            for name, means in ((name, value.mean(0)) for name, value in values.items())
            for step, place in {0: 0, episode.inner_order.shape[1]: -1}.items()
        }

    def update(self, loss: Callable[..., Tensor], predict: Callable[[Episode], Predictions], episode: Episode) -> None:
        """Take in the scores of these tasks, of which there may be none for this rank."""
        values: dict[str, Tensor] = {}
        if episode.tasks:
            with torch.inference_mode(False):  # adaptation needs gradients, which tensors made under inference refuse
                episode = Episode(*(tensor.clone() for tensor in episode))
                predictions = predict(episode)
                values = self.score(loss, predictions, episode)
            if self.task_table is not None:
                self.task_table.add(episode, values)
            if episode.task_ids[0] == 0:
                outputs, targets = predictions.query[0, -1], episode.query_y[0]
                classified = not targets.is_floating_point() and bool(outputs.isfinite().all())
                self.confusion = confusion(outputs, targets) if classified else None
        for name, mean in self._means.items():
            mean.to(episode.task_ids.device)
            mean.update(values.get(name, mean.total.new_zeros(0, len(mean.total))))

    def logged(self, stage: str, labels: bool) -> tuple[list[str], list[str]]:
        """Names under which the means by inner step, and the headline figures, of an evaluation are logged.

        Args:
            stage: such as ``val``.
            labels: whether targets are labels, of which accuracy is measured, too.
        """
        names = [name for name in self._means if labels or not name.endswith("_accuracy")]
        by_step = [_name(stage, name, step) for name in names for step in self.steps]
        return by_step, [f"{stage}_{headline}" for name, headline in _HEADLINES.items() if name in names]

    def finish(self, stage: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """End an evaluation; a collective.

        Returns:
            Means by metric and inner step, and the headline figures, as they are logged for ``stage``.
        """
        if self.task_table is not None:
            self.task_table.gather()
        intervals = {name: mean.interval() for name, mean in self._means.items()}
        self.intervals = {name: interval for name, interval in intervals.items() if interval.tasks}
        by_step: dict[str, Tensor] = {}
        headlines: dict[str, Tensor] = {}
        for name, interval in self.intervals.items():
            by_step |= {
                _name(stage, name, step): mean for step, mean in zip(self.steps, interval.mean.float(), strict=True)
            }
            if name in _HEADLINES:
                headlines[f"{stage}_{_HEADLINES[name]}"] = interval.mean[-1].float()
            self._means[name].reset()
        return by_step, headlines


def _name(stage: str, metric: str, step: int) -> str:
    """A scalar's name, the same in training, validation and test but for its beginning."""
    protocol = "_nontransductive" if "nontransductive" in metric else ""
    return f"{stage}/{metric.replace('_nontransductive', '')}/step_{step}{protocol}"
