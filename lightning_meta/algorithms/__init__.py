"""Meta-learning algorithms: one file each, on `MetaLearner`. A new one needs its file and its line here."""

from lightning_meta.algorithms.base import MetaLearner
from lightning_meta.algorithms.fomaml import FOMAML
from lightning_meta.algorithms.gradient_combination import GradientCombination
from lightning_meta.algorithms.maml import MAML
from lightning_meta.algorithms.reptile import Reptile

__all__ = ["FOMAML", "MAML", "GradientCombination", "MetaLearner", "Reptile"]
