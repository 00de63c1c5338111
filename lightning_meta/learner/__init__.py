"""The LightningModule that every method derives from, and what it holds."""

from lightning_meta.learner.meta_learner import MetaLearner
from lightning_meta.learner.schedule import Schedule
from lightning_meta.noise import silence

__all__ = [
    "MetaLearner",
    "Schedule",
]

silence()  # in programs and notebooks, as on the command line
