"""Checks by subject: each names the setting, its value, what was expected and what to do."""

from lightning_meta.learner.checks.backbone import check_backbone, check_frozen, check_layers
from lightning_meta.learner.checks.data import check_episodes, check_no_classes, check_other_classes, check_regression
from lightning_meta.learner.checks.settings import check_learned_rule, check_scored_steps, check_settings
from lightning_meta.learner.checks.trainer import check_trainer
from lightning_meta.learner.checks.vectorising import check_vectorising

__all__ = [
    "check_backbone",
    "check_episodes",
    "check_frozen",
    "check_layers",
    "check_learned_rule",
    "check_no_classes",
    "check_other_classes",
    "check_regression",
    "check_scored_steps",
    "check_settings",
    "check_trainer",
    "check_vectorising",
]
