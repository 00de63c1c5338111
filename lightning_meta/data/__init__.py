"""Episodic data: Lightning data modules whose batches are episodes."""

from lightning_meta.data.base import EpisodeDataModule
from lightning_meta.data.glyphs import GlyphEpisodes
from lightning_meta.data.images import ClassImages, ImageEpisodes
from lightning_meta.data.learn2learn import TasksetEpisodes
from lightning_meta.data.omniglot import OmniglotEpisodes
from lightning_meta.data.sinusoid import SinusoidEpisodes

__all__ = [
    "ClassImages",
    "EpisodeDataModule",
    "GlyphEpisodes",
    "ImageEpisodes",
    "OmniglotEpisodes",
    "SinusoidEpisodes",
    "TasksetEpisodes",
]
