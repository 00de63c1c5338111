"""Methods, one file each. A new one needs its file and its line here."""

from lightning_meta.algorithms.anil import ANIL
from lightning_meta.algorithms.boil import BOIL
from lightning_meta.algorithms.fine_tuning import FineTuning
from lightning_meta.algorithms.fomaml import FOMAML
from lightning_meta.algorithms.gradient_combination import GradientCombination
from lightning_meta.algorithms.imaml import IMAML
from lightning_meta.algorithms.learned_optimizer import LearnedOptimizer
from lightning_meta.algorithms.maml import MAML
from lightning_meta.algorithms.maml_plus_plus import MAMLPlusPlus
from lightning_meta.algorithms.matching_networks import MatchingNetworks
from lightning_meta.algorithms.nearest_neighbour import NearestNeighbour
from lightning_meta.algorithms.policy_gradient_maml import PolicyGradientMAML
from lightning_meta.algorithms.prototypical_networks import PrototypicalNetworks
from lightning_meta.algorithms.reptile import Reptile
from lightning_meta.algorithms.trpo_maml import TRPOMAML

__all__ = [
    "ANIL",
    "BOIL",
    "FOMAML",
    "IMAML",
    "MAML",
    "TRPOMAML",
    "FineTuning",
    "GradientCombination",
    "LearnedOptimizer",
    "MAMLPlusPlus",
    "MatchingNetworks",
    "NearestNeighbour",
    "PolicyGradientMAML",
    "PrototypicalNetworks",
    "Reptile",
]
