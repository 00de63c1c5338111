"""What the page knows of its checkpoints."""

from collections.abc import Mapping
from typing import Any

import torch

from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.errors import MetaLearningError
from lightning_meta.learner import MetaLearner


def preprocessing_of(learner: MetaLearner) -> Preprocessing | None:
    """How a picture becomes the learner's input; None where it was not trained on pictures."""
    plain = learner.trained_on.get("preprocessing")
    return None if plain is None else Preprocessing.from_plain(plain)


def describe(name: str, learner: MetaLearner, about: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data of a checkpoint, as ``/api/checkpoints`` and the static page's list of checkpoints hold it.

    Args:
        name: what the page calls it.
        learner: that it holds.
        about: what its file says of itself, of which ``title`` and ``results`` are shown.

    Raises:
        MetaLearningError: it takes neither pictures nor points of a curve.
    """
    preprocessing = preprocessing_of(learner)
    if preprocessing is None and not _takes_a_number(learner):
        raise MetaLearningError(
            f"--ckpt names {name}, which takes neither pictures nor points of a curve: leave it out"
        )
    return {
        "name": name,
        "kind": "curve" if preprocessing is None else "pictures",
        "title": about.get("title", name),
        "method": type(learner).__name__,
        "ways": learner.trained_on.get("ways"),
        "shots": learner.trained_on.get("shots"),
        "steps": learner.inner.evaluation_steps,
        "side": preprocessing and preprocessing.side,
        "channels": preprocessing and preprocessing.channels,
        "accuracy": _accuracy(about.get("results", {})),
    }


def _accuracy(results: Mapping[str, Any]) -> str | None:
    """Of queries that are seen alone, as the page's are, in words; None where a loss was measured."""
    if results.get("kind") != "accuracy":
        return None
    mean, half_width = results.get("alone") or results["together"]
    return f"{100 * mean:.1f} ± {100 * half_width:.1f} %"


def _takes_a_number(learner: MetaLearner) -> bool:
    """Whether the network maps one number to one."""
    with torch.no_grad():
        try:
            return learner.backbone(torch.zeros(2, 1)).shape == (2, 1)
        except RuntimeError:
            return False
