"""What the page shows of a checkpoint."""

from typing import Any

import torch

from lightning_meta.errors import MetaLearningError
from lightning_meta.learner import MetaLearner


def describe(name: str, learner: MetaLearner) -> dict[str, Any]:
    """Plain data of a learner, as ``/api/checkpoints`` and the static page's list of checkpoints hold it.

    Args:
        name: what the page calls it.
        learner: with the data of its checkpoint.

    Raises:
        MetaLearningError: it takes neither pictures nor points of a curve.
    """
    known, preprocessing = learner.description, learner.preprocessing
    if preprocessing is None and not _takes_a_number(learner):
        raise MetaLearningError(
            f"--ckpt names {name}, which takes neither pictures nor points of a curve: leave it out"
        )
    return {
        "name": name,
        "kind": "curve" if preprocessing is None else "pictures",
        "title": known.get("title", name),
        "method": type(learner).__name__,
        "ways": known.get("ways"),
        "shots": known.get("shots"),
        "steps": learner.inner.evaluation_steps,
        "side": preprocessing and preprocessing.side,
        "channels": preprocessing and preprocessing.channels,
        "accuracy": known.get("accuracy"),
    }


def _takes_a_number(learner: MetaLearner) -> bool:
    """Whether the network maps one number to one."""
    with torch.no_grad():
        try:
            return learner.backbone(torch.zeros(2, 1)).shape == (2, 1)
        except RuntimeError:
            return False
