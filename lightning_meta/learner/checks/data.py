"""What is checked of the data that a learner is given."""

from typing import TYPE_CHECKING

import torch

from lightning_meta.episode import Episode, EpisodeSource, InnerBatches, Split
from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.checks.backbone import check_frozen
from lightning_meta.learner.checks.checkpoint import check_same_tasks
from lightning_meta.learner.checks.monitors import check_monitors
from lightning_meta.learner.checks.trainer import check_data_precision
from lightning_meta.learner.checks.vectorising import check_outer_loss, check_vectorising
from lightning_meta.mapping import defined_at, kept_generators
from lightning_meta.params import trainable

if TYPE_CHECKING:
    from lightning_meta.learner.meta_learner import MetaLearner

_SPLITS: dict[str, Split] = {"fit": "train", "validate": "validation"}


def check_episodes(learner: "MetaLearner", source: EpisodeSource, stage: str) -> None:
    """Check by one episode that data, backbone and method go together, and before a fit that the method is sound."""
    with kept_generators(torch.device("cpu")):  # dropout draws, and a run shall not depend on checks
        _check_episodes(learner, source, stage)


def _check_episodes(learner: "MetaLearner", source: EpisodeSource, stage: str) -> None:
    check_train_ways(source, learner.any_ways, type(learner).__name__)
    episode = source.draw(_SPLITS.get(stage, "test"), torch.zeros(1, dtype=torch.int64))
    method = type(learner).__name__
    batches = learner.training_batches() if stage == "fit" else learner.evaluation_batches()
    check_inner_order(episode, batches, f"{type(source).__name__}{defined_at(source.draw)}")
    episode = episode._replace(inner_order=episode.inner_order[:, : batches.steps])  # those of the first visit
    check_data_precision(episode, learner.trainer)
    learner.input_shape = list(episode.support_x.shape[2:])
    try:
        learner.check_data(source, episode)
    except MetaLearningError:
        if learner.trained_on:  # of what `load_from_checkpoint` gave
            given = {"data": type(source).__name__, "ways": source.ways, "inputs": learner.input_shape}
            check_same_tasks(learner, learner.trained_on, given)  # which says it better
        raise
    check_frozen(learner.backbone, learner.adapted_params(trainable(learner)), learner.inner, method)
    if stage != "fit":
        return
    if source.has_validation() and learner.trainer.limit_val_batches:
        check_monitors(learner, episode)
    if learner.needs_queries:
        check_no_queries(source.queries_in("train"), method)
    task, carry = Episode(*(tensor[0] for tensor in episode)), learner.training_carry(episode)
    check_outer_loss(learner, task, carry)
    if learner.task_map.vectorised:
        check_vectorising(learner, task, carry)


def check_inner_order(episode: Episode, batches: InnerBatches, data: str) -> None:
    """Refuse episodes that bring rows for another number of inner steps, or rows that the support set lacks."""
    order, expected, rows = episode.inner_order, batches.steps * batches.visits, episode.support_x.shape[1]
    found = f"of {order.shape[1]} steps" if order.dim() == 3 else f"of shape {tuple(order.shape)}"
    if order.dim() != 3 or order.shape[1] != expected:
        raise MetaLearningError(
            f"data.class_path is {data}, whose episodes bring an inner_order {found}, but model.inner asks for "
            f"{expected} steps, shape (tasks, {expected}, rows): let `draw` give as many as `connect` was told"
        )
    if order.numel() and not 0 <= int(order.min()) <= int(order.max()) < rows:
        raise MetaLearningError(
            f"data.class_path is {data}, whose episodes bring an inner_order of rows {int(order.min())} to "
            f"{int(order.max())}, but a support set has {rows}, numbered from 0: let `draw` give some of these"
        )


def check_train_ways(source: EpisodeSource, any_ways: bool, algorithm: str) -> None:
    """Refuse training tasks of another number of classes for an algorithm whose outputs are one for each way."""
    found = source.ways_in("train")
    if found != source.ways and not any_ways:
        raise MetaLearningError(
            f"data.train_ways is {found} and data.ways {source.ways}, but {algorithm} has one output for each way: "
            "make them equal, or take PrototypicalNetworks, MatchingNetworks, NearestNeighbour or FineTuning"
        )


def check_no_queries(queries: int, algorithm: str) -> None:
    """Refuse training episodes without queries for an algorithm that learns from them."""
    if queries < 1:
        raise MetaLearningError(f"data.train_queries is {queries}, but {algorithm} learns from queries: raise it")


def check_no_classes(found: int, data: str) -> None:
    """Refuse to train a classifier on classes that the data do not number."""
    if not found:
        raise MetaLearningError(
            f"data.class_path is {data}, whose tasks do not say which classes their labels are: joint training needs a "
            "data module of this package that draws from classes, such as OmniglotEpisodes or ArrayEpisodes"
        )


def check_regression(episode: Episode, data: str, algorithm: str) -> None:
    """Refuse targets that are not labels."""
    if episode.support_y.is_floating_point():
        raise MetaLearningError(
            f"data.class_path is {data}, whose targets are real values, but {algorithm} compares classes: take MAML or "
            "another algorithm with an inner loop, and model.loss torch.nn.functional.mse_loss"
        )


def check_other_classes(own: int, found: int) -> None:
    """Refuse to go on training a classifier on other classes."""
    if own != found:
        raise MetaLearningError(
            f"the classifier tells {own} training classes apart, but the checkpoint or data has "
            f"{found}: give data and checkpoint of one run, as its config.yaml names them, or start a new one"
        )
