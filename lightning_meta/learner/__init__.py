"""The LightningModule that every method derives from, and what it holds."""

from lightning_meta.learner.meta_learner import MetaLearner

__all__ = [
    "MetaLearner",
]
