"""Training on all classes at once, for baselines that do not meta-learn: Chen et al., arXiv 1904.04232."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_meta.episode import Episode, EpisodeSource
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop
from lightning_meta.learner import MetaLearner
from lightning_meta.learner.checks import check_no_classes, check_other_classes
from lightning_meta.params import Params, named


class JointTraining(MetaLearner):
    """Base of baselines whose features come from an ordinary classifier of all training classes.

    A meta-step classifies the images of its tasks, support and queries alike, among all classes of the training split,
    by a layer of its own on the features that the backbone gives its last layer, an ``nn.Linear``; it is made when a
    fit begins, or a checkpoint is loaded. The subclass says how a new task is solved with these features.

    Args:
        backbone: a network that ends with an ``nn.Linear``.
        inner: the inner loop at test; none is run in training.

    Raises:
        MetaLearningError: the data do not say which class a label is, or have other classes than the checkpoint that
            is to be trained on.
    """

    needs_queries = False
    trains_inner_rule = False
    needs_linear_head = True
    trained_alike = ("FineTuning", "NearestNeighbour")

    def __init__(
        self,
        backbone: nn.Module,
        inner: InnerLoop = InnerLoop(steps=0),
        **settings: Any,
    ) -> None:
        super().__init__(backbone, inner, **settings)
        self.classifier: nn.Linear | None = None

    def outer_loss(self, params: Params, task: Episode, carry: Any, progress: Tensor) -> tuple[Tensor, Any]:
        """The loss of classifying the task's images among all classes."""
        assert self.classifier is not None
        features = self.features(named("backbone", params), torch.cat([task.support_x, task.query_x]))
        outputs = self.run("classifier", params, features.to(self.classifier.weight.dtype))
        labels = task.classes[torch.cat([task.support_y, task.query_y])]
        return self.loss(outputs, labels, reduction="mean"), carry

    def features(self, weights: Params, x: Tensor) -> Tensor:
        """What is classified among all classes, (rows, features)."""
        return self.head.features(weights, x)

    def classify_among(self, classes: int, features: int | None = None) -> None:
        """Draw a layer that tells so many classes apart.

        Args:
            classes: how many there are.
            features: how many the layer is given; as many as the network's last layer when None.
        """
        like, inputs = next(self.backbone.parameters()), features or self.head.in_features
        self.classifier = nn.Linear(inputs, classes, device=like.device, dtype=like.dtype)

    def feature_width(self, source: EpisodeSource) -> int:
        """How many features the network makes of these data."""
        return self.head.in_features

    def setup(self, stage: str) -> None:
        """Ask the data for their number of classes."""
        source = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(source, EpisodeSource):
            check_no_classes(source.train_class_count, type(source).__name__)
            if self.classifier is None:
                self.classify_among(source.train_class_count, self.feature_width(source))
            self._check_other_classes(source.train_class_count)
        if stage == "fit" and self.classifier is None:
            raise MetaLearningError(
                f"{type(self).__name__} trains on data that do not say how many classes they have: call "
                "learner.classify_among(classes) before the fit, or give it a data module of this package"
            )
        super().setup(stage)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the classes that the checkpoint was trained on, except to train on others."""
        held = checkpoint["state_dict"].get("classifier.weight")
        if held is not None and self._trainer is not None and self._trainer.state.fn == "fit":
            self._check_other_classes(len(held))
        elif held is not None:
            self.classify_among(*held.shape)
        super().on_load_checkpoint(checkpoint)

    def _check_other_classes(self, found: int) -> None:
        assert self.classifier is not None
        check_other_classes(self.classifier.out_features, found)
