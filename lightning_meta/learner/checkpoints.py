"""What a checkpoint says beside the weights: the method, the data, and how far the training was."""

from typing import TYPE_CHECKING, Any

from lightning_meta.episode import EpisodeSource
from lightning_meta.learner.checks import check_checkpoint
from lightning_meta.learner.hyperparameters import public_path
from lightning_meta.learner.linear_head import ends_with_linear
from lightning_meta.params import named

if TYPE_CHECKING:
    from lightning_meta.learner.meta_learner import MetaLearner


def describe(learner: "MetaLearner") -> dict[str, Any]:
    """What is added to a learner's checkpoint, plain data all of it."""
    chunk, source = learner.task_map.chunk, getattr(learner.trainer, "datamodule", None)
    return {
        "method": public_path(type(learner)),
        "trained_on": describe_source(source) if isinstance(source, EpisodeSource) else learner.trained_on,
        "max_steps": learner.trainer.max_steps,
        "train_seconds": learner.train_seconds,
        "task_chunk": chunk.size if chunk.tuned else None,
    }


def restore(learner: "MetaLearner", checkpoint: dict[str, Any], not_plain: set[str], scheduled: bool) -> None:
    """Check that a checkpoint belongs to a learner, and go on with its counts.

    Args:
        learner: that is to take over the checkpoint.
        checkpoint: as Lightning reads it.
        not_plain: arguments of this learner that have no plain form, so that they were given again.
        scheduled: whether its outer rate follows a schedule, which is made for a run of one length.
    """
    if learner.any_ways and ends_with_linear(learner.backbone):
        learner.head.resize(named("backbone", checkpoint["state_dict"]))
    training = learner._trainer is not None and learner._trainer.state.fn == "fit"
    planned = learner.trainer.max_steps if training and scheduled else None
    check_checkpoint(learner.state_dict(), checkpoint, not_plain, planned)
    learner.meta_steps, learner.trained_on = checkpoint["global_step"], checkpoint.get("trained_on", {})
    # An early best checkpoint, tested after the fit, does not shorten the run.
    learner.train_seconds = max(learner.train_seconds, checkpoint.get("train_seconds", 0.0))
    learner.task_map.chunk.restore(checkpoint.get("task_chunk"))


def describe_source(source: EpisodeSource) -> dict[str, Any]:
    """What a checkpoint says of the data that it was trained on, so that a person can use it without them.

    Returns:
        The data module's name, ways and shots of its tests, the support rows of such a task, and how a picture becomes
        an input, where inputs are pictures.
    """
    shots, preprocessing = source.shots_in("test"), source.preprocessing
    return {
        "data": type(source).__name__, "ways": source.ways, "shots": shots, "rows": source.ways * shots,
        "preprocessing": None if preprocessing is None else preprocessing.plain(),
    }  # fmt: skip
