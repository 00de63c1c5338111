"""Meta-learning in PyTorch Lightning: few-shot learners on episodic data.

The names that most programs need are here: every method, backbone and data module, ``MetaLearner``, ``InnerLoop`` and
``Episode``. Each is imported when it is first used, so that ``import lightning_meta`` does not load PyTorch.

The inner rules ``SGD`` and ``Adam`` are only in ``lightning_meta.inner``, because programs that use them also use the
optimizers of ``torch.optim`` that have the same names.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_meta.algorithms import ANIL as ANIL
    from lightning_meta.algorithms import BOIL as BOIL
    from lightning_meta.algorithms import FOMAML as FOMAML
    from lightning_meta.algorithms import IMAML as IMAML
    from lightning_meta.algorithms import MAML as MAML
    from lightning_meta.algorithms import TRPOMAML as TRPOMAML
    from lightning_meta.algorithms import FineTuning as FineTuning
    from lightning_meta.algorithms import GradientCombination as GradientCombination
    from lightning_meta.algorithms import LearnedOptimizer as LearnedOptimizer
    from lightning_meta.algorithms import MAMLPlusPlus as MAMLPlusPlus
    from lightning_meta.algorithms import MatchingNetworks as MatchingNetworks
    from lightning_meta.algorithms import NearestNeighbour as NearestNeighbour
    from lightning_meta.algorithms import PolicyGradientMAML as PolicyGradientMAML
    from lightning_meta.algorithms import PrototypicalNetworks as PrototypicalNetworks
    from lightning_meta.algorithms import Reptile as Reptile
    from lightning_meta.backbones import GRU as GRU
    from lightning_meta.backbones import LSTM as LSTM
    from lightning_meta.backbones import MLP as MLP
    from lightning_meta.backbones import Conv4 as Conv4
    from lightning_meta.backbones import GaussianPolicy as GaussianPolicy
    from lightning_meta.backbones import Pretrained as Pretrained
    from lightning_meta.backbones import ResNet12 as ResNet12
    from lightning_meta.backbones import VisionTransformer as VisionTransformer
    from lightning_meta.backbones import WideResNet as WideResNet
    from lightning_meta.data import ArrayEpisodes as ArrayEpisodes
    from lightning_meta.data import CIFARFSEpisodes as CIFARFSEpisodes
    from lightning_meta.data import EpisodeDataModule as EpisodeDataModule
    from lightning_meta.data import FC100Episodes as FC100Episodes
    from lightning_meta.data import FolderEpisodes as FolderEpisodes
    from lightning_meta.data import GlyphEpisodes as GlyphEpisodes
    from lightning_meta.data import ImageEpisodes as ImageEpisodes
    from lightning_meta.data import MiniImageNetEpisodes as MiniImageNetEpisodes
    from lightning_meta.data import MNISTEpisodes as MNISTEpisodes
    from lightning_meta.data import NavigationEpisodes as NavigationEpisodes
    from lightning_meta.data import OmniglotEpisodes as OmniglotEpisodes
    from lightning_meta.data import QuadraticEpisodes as QuadraticEpisodes
    from lightning_meta.data import SinusoidEpisodes as SinusoidEpisodes
    from lightning_meta.data import TasksetEpisodes as TasksetEpisodes
    from lightning_meta.data import TieredImageNetEpisodes as TieredImageNetEpisodes
    from lightning_meta.episode import Episode as Episode
    from lightning_meta.inference import FewShotClassifier as FewShotClassifier
    from lightning_meta.inference import FewShotRegressor as FewShotRegressor
    from lightning_meta.inference import load_learner as load_learner
    from lightning_meta.inner import InnerLoop as InnerLoop
    from lightning_meta.inner import LayerRates as LayerRates
    from lightning_meta.inner import LSTMOptimizer as LSTMOptimizer
    from lightning_meta.inner import MetaSGD as MetaSGD
    from lightning_meta.learner import MetaLearner as MetaLearner

__version__ = "0.1.0"

_MODULES = {
    "ANIL": "lightning_meta.algorithms",
    "BOIL": "lightning_meta.algorithms",
    "FOMAML": "lightning_meta.algorithms",
    "IMAML": "lightning_meta.algorithms",
    "MAML": "lightning_meta.algorithms",
    "TRPOMAML": "lightning_meta.algorithms",
    "FineTuning": "lightning_meta.algorithms",
    "GradientCombination": "lightning_meta.algorithms",
    "LearnedOptimizer": "lightning_meta.algorithms",
    "MAMLPlusPlus": "lightning_meta.algorithms",
    "MatchingNetworks": "lightning_meta.algorithms",
    "NearestNeighbour": "lightning_meta.algorithms",
    "PolicyGradientMAML": "lightning_meta.algorithms",
    "PrototypicalNetworks": "lightning_meta.algorithms",
    "Reptile": "lightning_meta.algorithms",
    "GRU": "lightning_meta.backbones",
    "LSTM": "lightning_meta.backbones",
    "MLP": "lightning_meta.backbones",
    "Conv4": "lightning_meta.backbones",
    "GaussianPolicy": "lightning_meta.backbones",
    "Pretrained": "lightning_meta.backbones",
    "ResNet12": "lightning_meta.backbones",
    "VisionTransformer": "lightning_meta.backbones",
    "WideResNet": "lightning_meta.backbones",
    "ArrayEpisodes": "lightning_meta.data",
    "CIFARFSEpisodes": "lightning_meta.data",
    "EpisodeDataModule": "lightning_meta.data",
    "FC100Episodes": "lightning_meta.data",
    "FolderEpisodes": "lightning_meta.data",
    "GlyphEpisodes": "lightning_meta.data",
    "ImageEpisodes": "lightning_meta.data",
    "MiniImageNetEpisodes": "lightning_meta.data",
    "MNISTEpisodes": "lightning_meta.data",
    "NavigationEpisodes": "lightning_meta.data",
    "OmniglotEpisodes": "lightning_meta.data",
    "QuadraticEpisodes": "lightning_meta.data",
    "SinusoidEpisodes": "lightning_meta.data",
    "TasksetEpisodes": "lightning_meta.data",
    "TieredImageNetEpisodes": "lightning_meta.data",
    "Episode": "lightning_meta.episode",
    "FewShotClassifier": "lightning_meta.inference",
    "FewShotRegressor": "lightning_meta.inference",
    "load_learner": "lightning_meta.inference",
    "InnerLoop": "lightning_meta.inner",
    "LayerRates": "lightning_meta.inner",
    "LSTMOptimizer": "lightning_meta.inner",
    "MetaSGD": "lightning_meta.inner",
    "MetaLearner": "lightning_meta.learner",
}

__all__ = ["__version__", *_MODULES]


if not TYPE_CHECKING:  # a type checker that saw it would accept every name

    def __getattr__(name: str) -> Any:
        """Import a name of ``_MODULES`` at its first use (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(import_module(_MODULES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
