"""A network that has learned one task: what a person holds after a handful of examples."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.linear_head import LinearHead, ends_with_linear
from lightning_meta.learner.losses import loss_name
from lightning_meta.learner.running import evaluating, run_alone
from lightning_meta.params import Params, detach, map_params

if TYPE_CHECKING:
    from lightning_meta.learner.meta_learner import MetaLearner


class AdaptedLearner(nn.Module):
    """A learner's network after adaptation to one task, an ordinary module with weights of its own, dropout off.

    Attributes:
        backbone: the network, with the adapted weights.
        support_x: what was learned from, (support rows, ...), class by class.
        classes: the labels that the columns of an output stand for; None for a regression.
        head: ``own`` where the classes fit the network's outputs or the method takes any number of them, ``prototypes``
            where there are more, and the last layer was made from the mean features of each class.
        together: whether all rows that are given at once share their batch statistics; otherwise each is seen alone
            beside the support set.

    Args:
        learner: the learner that was adapted.
        task: one task without the task axis, whose queries are not looked at.
        classes: as above.
        weights: complete weights before adaptation and after every step, or those after the last alone.
        head: as above.
        together: as above.
    """

    support_x: Tensor

    def __init__(
        self,
        learner: "MetaLearner",
        task: Episode,
        classes: list[Any] | None,
        weights: list[Params],
        head: Literal["own", "prototypes"],
        together: bool,
    ) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(learner.backbone)
        if learner.any_ways and ends_with_linear(self.backbone):
            LinearHead(self.backbone).resize(weights[-1])
        own = dict((*self.backbone.named_parameters(), *self.backbone.named_buffers()))
        for name, value in weights[-1].items():
            own[name].data = value.clone()
        self.register_buffer("support_x", task.support_x)
        self._embeds = not task.support_x.is_floating_point()
        self.classes, self.head, self.together = classes, head, together
        self._every_step = weights
        self._learner = (learner, task)  # in a tuple, so that it is not a part of the model
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for ``x`` of shape (rows, ...), inputs as in training: (rows, classes) or (rows, targets)."""
        return self._outputs(dict(self.backbone.named_parameters()), x)

    def steps(self, x: Tensor) -> Tensor:
        """Outputs before adaptation and after every inner step, (steps + 1, rows, outputs); kept by ``every_step``."""
        return torch.stack([self._outputs(map_params(self._moved, weights), x) for weights in self._every_step])

    def support_steps(self) -> Tensor:
        """The same for the support set in one batch, class by class, (steps + 1, support rows, outputs)."""
        learner, task = self._learner_and_task()
        with evaluating(learner):
            encoded = [learner.encode(map_params(self._moved, weights), task.support_x) for weights in self._every_step]
        return torch.stack([self._columns(learner.decide(task, rows, rows)) for rows in encoded])

    def _outputs(self, weights: Params, x: Tensor) -> Tensor:
        learner, task = self._learner_and_task()
        encode, x = partial(learner.encode, weights), _as_inputs(x, self.support_x, self._embeds)
        with evaluating(learner):
            rows = encode(x) if self.together else run_alone(encode, task.support_x, x, learner.task_map.vectorised)
            support = encode(task.support_x) if learner.compares else rows[:0]
        return self._columns(learner.decide(task, support, rows))

    def _learner_and_task(self) -> tuple["MetaLearner", Episode]:
        learner, task = self._learner
        labels, classes = self._moved(task.support_y), self._moved(task.classes)
        return learner, task._replace(support_x=self.support_x, support_y=labels, classes=classes)

    def _moved(self, tensor: Tensor) -> Tensor:
        """To where this module has been moved, and to its precision."""
        return tensor.to(self.support_x if tensor.is_floating_point() else self.support_x.device)

    def _columns(self, outputs: Tensor) -> Tensor:
        return outputs if self.classes is None else outputs[:, : len(self.classes)]


def adapt_to(
    learner: "MetaLearner",
    support_x: Tensor,
    support_y: Any,
    steps: int | None = None,
    together: bool = False,
    every_step: bool = False,
) -> AdaptedLearner:
    """Adapt a learner to labelled examples, dropout off; the learner itself stays as it is.

    Args:
        learner: the learner.
        support_x: examples, inputs as in training, (rows, ...).
        support_y: their classes, integers or strings (rows,); or real targets, a tensor (rows, targets).
        steps: inner steps; ``inner.evaluation_steps`` when None.
        together: whether rows that the module is given at once share their batch statistics ("transductive");
            otherwise each is seen alone beside the support set.
        every_step: whether to keep the weights of every step, for `AdaptedLearner.steps`.

    Raises:
        MetaLearningError: examples and labels do not go together or with the network, or adaptation diverges.
    """
    like = next(learner.backbone.parameters())
    classes, targets = _targets(support_y, like)
    if len(targets) != len(support_x) or not len(targets):
        raise MetaLearningError(
            f"{len(support_x)} examples and {len(targets)} labels were given, expected one label for each example, and "
            "at least one example"
        )
    order = targets.argsort(stable=True) if classes is not None else torch.arange(len(targets), device=like.device)
    embeds = any(isinstance(part, nn.Embedding | nn.EmbeddingBag) for part in learner.backbone.modules())
    x, y = _as_inputs(torch.as_tensor(support_x), like, embeds)[order], targets[order]
    if not x.isfinite().all():
        raise MetaLearningError("the examples to adapt to hold values that are not finite: leave those examples out")
    if steps is not None and steps < 0:
        raise MetaLearningError(f"steps is {steps}, expected 0 or more inner steps")
    params = learner.meta_parameters()
    head: Literal["own", "prototypes"] = "own"
    with torch.inference_mode(False), torch.no_grad(), evaluating(learner):
        width = _width(learner, x, y)
        if classes is not None and width is not None and len(classes) > width:
            head, steps = "prototypes", 0
        steps = learner.inner.evaluation_steps if steps is None else steps
        task = _task(x, y, classes, steps, learner.inner.evaluation_batch_size)
        carry = learner.evaluation_carry(Episode(*(tensor[None] for tensor in task)))
        if learner.carry_per_task:
            carry = pytree.tree_map(lambda leaf: leaf[0], carry)
        try:
            scale = _scale(learner, len(x))
            every = [detach(weights) for weights in learner.adapted_weights(params, task, carry, scale)]
        except IndexError:  # of what is learned for each inner step
            raise MetaLearningError(
                f"steps is {steps}, but the learner has rates or norms for {learner.inner.steps} inner steps: take "
                "those or fewer"
            ) from None
        if classes is not None and head == "prototypes":
            every = [weights | _prototypes(learner, weights, x, y, len(classes)) for weights in every]
    if not all(value.isfinite().all() for value in every[-1].values()):
        raise MetaLearningError(
            f"adaptation by {steps} inner steps diverged on these {len(x)} examples: lower the number of steps"
        )
    return AdaptedLearner(learner, task, classes, every if every_step else every[-1:], head, together)


def _as_inputs(x: Tensor, like: Tensor, embeds: bool) -> Tensor:
    """Examples in the type and at the place that a network takes them.

    Args:
        x: examples, (rows, ...).
        like: a weight of the network, or an input of its own.
        embeds: whether whole numbers are token ids.

    Raises:
        MetaLearningError: they are pixels that are not scaled, or token ids that are not whole.
    """
    if x.is_floating_point() and not like.is_floating_point():
        raise MetaLearningError("the network was adapted to token ids, but is given floats: give token ids as integers")
    if embeds and not x.is_floating_point() and x.dtype != torch.bool:
        return x.to(like.device, torch.int64)
    if x.dtype == torch.uint8:
        raise MetaLearningError(
            "the examples are uint8, which training scales to 0..1: give x.float() / 255 (and what else the data do to "
            "them), or pictures to FewShotClassifier, which prepares them"
        )
    return x.to(like)


def _targets(labels: Any, like: Tensor) -> tuple[list[Any] | None, Tensor]:
    """The classes in order and the number of each row's, or None and real targets (rows, targets)."""
    if isinstance(labels, Tensor) and labels.is_floating_point():
        return None, (labels[:, None] if labels.dim() == 1 else labels).to(like)
    if getattr(labels, "ndim", 1) != 1:
        raise MetaLearningError(
            f"the labels have shape {tuple(labels.shape)}, expected one for each example: give labels.argmax(1) where "
            "they are one-hot, or floats as targets of a regression"
        )
    listed: Sequence[Any] = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    classes = sorted(set(listed))
    place = {label: number for number, label in enumerate(classes)}
    return classes, torch.tensor([place[label] for label in listed], device=like.device)


def _task(x: Tensor, y: Tensor, classes: list[Any] | None, steps: int, size: int | None) -> Episode:
    """One task without queries; rows are dealt to the inner steps in turn, the first of every class first."""
    rows = torch.arange(len(x), device=x.device)
    ways = torch.arange(len(classes or ()), device=x.device)
    if size is None or size >= len(x):
        order = rows.expand(steps, -1)
    else:
        shot = rows - torch.searchsorted(y, y) if classes else rows  # of its class
        dealt = (shot * max(len(ways), 1) + y).argsort() if classes else rows
        order = dealt[torch.arange(steps * size, device=x.device).view(steps, size) % len(x)]
    return Episode(x, y, x[:0], y[:0], order, ways.new_zeros(()), ways)


def _width(learner: "MetaLearner", x: Tensor, y: Tensor) -> int | None:
    """Outputs of the network for these inputs; None for a method that takes any number of classes."""
    try:
        outputs = learner.encode(dict(learner.backbone.named_parameters()), x)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        raise MetaLearningError(
            f"the learner's {type(learner.backbone).__name__} cannot take inputs of shape {tuple(x.shape)}: "
            f"{_said(error)}. "
            + ("Give token ids as integers" if _of_embedding(error) else f"Give examples {_trained_shape(learner)}")
        ) from error
    if learner.any_ways and not y.is_floating_point():
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what is refused just below
            targets = y if y.is_floating_point() else y.clamp(max=outputs.shape[1] - 1)
            fits = learner.loss(outputs, targets, reduction="none").shape == y.shape
            fits = fits and (outputs.shape == y.shape or not y.is_floating_point())  # losses broadcast
    except (RuntimeError, ValueError, IndexError, TypeError):
        fits = False
    if not fits:
        given = f"real targets of shape {tuple(y.shape)}" if y.is_floating_point() else "classes"
        raise MetaLearningError(
            f"the learner has {outputs.shape[1]} outputs and the loss {loss_name(learner.loss)}, "
            f"which does not go with {given}: take a learner that was trained on such targets"
        )
    return outputs.shape[1]


def _said(error: Exception) -> str:
    """The first line of an error of PyTorch."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _of_embedding(error: Exception) -> bool:
    return "embedding" in str(error) and "scalar types" in str(error)


def _trained_shape(learner: "MetaLearner") -> str:
    """Which examples fit, in words."""
    plain = learner.trained_on.get("preprocessing")
    pictures = [plain["channels"], plain["side"], plain["side"]] if plain else None
    inputs = learner.trained_on.get("inputs") or learner.input_shape or pictures
    shape = f", (rows, {', '.join(map(str, inputs))})" if isinstance(inputs, list) else ""
    return f"of the shape that it was trained on{shape}"


def _prototypes(learner: "MetaLearner", weights: Params, x: Tensor, y: Tensor, ways: int) -> Params:
    """A last layer that classifies by the nearest mean of features.

    ||f - mu||^2 = ||f||^2 - (2 mu . f - ||mu||^2), whose bracket is a linear layer: Snell et al., arXiv 1703.05175,
    section 2.4.
    """
    features = learner.head.features(weights, x)
    means = torch.stack([features[y == number].mean(0) for number in range(ways)])
    names: Iterator[str] = iter(learner.head.of(weights))
    return {name: 2 * means if weights[name].dim() == 2 else -means.square().sum(1) for name in names}


def _scale(learner: "MetaLearner", rows: int) -> float:
    """What keeps an inner loss that is a sum over rows as large as it was in training, with more rows or fewer."""
    trained, size = learner.trained_on.get("rows", 0), learner.inner.evaluation_batch_size
    if learner.inner.reduction == "mean" or not trained:
        return 1.0
    return min(trained, size or trained) / min(rows, size or rows)
