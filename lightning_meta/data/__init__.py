"""Episodic data: Lightning data modules whose batches are episodes."""

from lightning_meta.data.arrays import ArrayEpisodes
from lightning_meta.data.cifarfs import CIFARFSEpisodes
from lightning_meta.data.drawing.data_module import EpisodeDataModule
from lightning_meta.data.drawing.images import ClassImages, ImageEpisodes
from lightning_meta.data.fc100 import FC100Episodes
from lightning_meta.data.folders import FolderEpisodes
from lightning_meta.data.glyphs import GlyphEpisodes
from lightning_meta.data.learn2learn import TasksetEpisodes
from lightning_meta.data.mini_imagenet import MiniImageNetEpisodes
from lightning_meta.data.mnist import MNISTEpisodes
from lightning_meta.data.navigation import NavigationEpisodes
from lightning_meta.data.omniglot import OmniglotEpisodes
from lightning_meta.data.quadratics import QuadraticEpisodes
from lightning_meta.data.sinusoid import SinusoidEpisodes
from lightning_meta.data.tiered_imagenet import TieredImageNetEpisodes

__all__ = [
    "ArrayEpisodes",
    "CIFARFSEpisodes",
    "ClassImages",
    "EpisodeDataModule",
    "FC100Episodes",
    "FolderEpisodes",
    "GlyphEpisodes",
    "ImageEpisodes",
    "MNISTEpisodes",
    "MiniImageNetEpisodes",
    "NavigationEpisodes",
    "OmniglotEpisodes",
    "QuadraticEpisodes",
    "SinusoidEpisodes",
    "TasksetEpisodes",
    "TieredImageNetEpisodes",
]
