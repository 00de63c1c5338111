"""Training on all classes at once, for baselines that do not meta-learn: Chen et al., arXiv 1904.04232."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_meta.algorithms import checks
from lightning_meta.algorithms.base import MetaLearner
from lightning_meta.episode import Episode, EpisodeSource
from lightning_meta.inner import InnerLoop
from lightning_meta.params import Params, named


class JointTraining(MetaLearner):
    """Base of baselines whose features come from an ordinary classifier of all training classes.

    A meta-step classifies the images of its tasks, support and queries alike, among all classes of the training split,
    by a layer of its own on the features that the backbone gives its last layer, an ``nn.Linear``. The subclass says
    how a new task is solved with these features.

    Args:
        backbone: a network that ends with an ``nn.Linear``.
        classes: of the training split; the command line takes the number from the data.
        inner: the inner loop at test; none is run in training.
        loss: as in `MetaLearner`.
        outer_reduction: as in `MetaLearner`.
        optimizer: as in `MetaLearner`.
        lr_scheduler: as in `MetaLearner`.
        task_chunk: as in `MetaLearner`.
        compile: as in `MetaLearner`.
        replace_norms: as in `MetaLearner`.

    Raises:
        MetaLearningError: the data do not say which class a label is, or have another number of classes.
    """

    needs_queries = False
    learns_rule = False

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        inner: InnerLoop = InnerLoop(steps=0),
        loss: Callable[..., Tensor] = functional.cross_entropy,
        outer_reduction: Literal["mean", "sum"] = "mean",
        optimizer: OptimizerCallable = lambda parameters: Adam(parameters, lr=1e-3),
        lr_scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        task_chunk: int | Literal["auto"] = "auto",
        compile: bool = True,  # noqa: A002
        replace_norms: bool = False,
    ) -> None:
        super().__init__(
            backbone, inner, loss, outer_reduction, optimizer, lr_scheduler, task_chunk, compile, replace_norms
        )
        self.classifier = nn.Linear(self.head.features, classes)

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """The loss of classifying the task's images among all classes."""
        features = self.run_backbone(self.features(params), torch.cat([task.support_x, task.query_x]))
        outputs = torch.func.functional_call(self.classifier, named("classifier", params), (features,))
        labels = task.classes[torch.cat([task.support_y, task.query_y])]
        return self.loss(outputs, labels, reduction="mean"), carry

    def features(self, params: Params) -> Params:
        """Weights with which the backbone gives features."""
        return self.head.without(named("backbone", params))

    def refuse_data(self, source: EpisodeSource, episode: Episode) -> None:
        """Compare the data with the backbone and the number of classes."""
        super().refuse_data(source, episode)
        checks.refuse_classes(self.classifier.out_features, source.train_classes, type(source).__name__)
