"""The LightningModule that every method derives from, and what it holds."""

from lightning_meta.learner.meta_learner import MetaLearner
from lightning_meta.learner.schedule import Schedule

__all__ = [
    "MetaLearner",
    "Schedule",
]
