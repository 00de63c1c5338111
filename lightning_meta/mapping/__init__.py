"""How tasks run in parallel: the meta-gradient, its graph, and layers that differentiate correctly under ``vmap``."""

from lightning_meta.mapping.attention import exact_attention
from lightning_meta.mapping.author_line import author_line, defined_at, line_of_change
from lightning_meta.mapping.convolution import RoutedConvolutions
from lightning_meta.mapping.embedding import exact_embedding
from lightning_meta.mapping.gradient import (
    ChunkGradient,
    MetaGradient,
    chunk_gradient,
    map_tasks,
    meta_gradient,
    with_gradient,
)
from lightning_meta.mapping.graph import Compiled, out_of_memory
from lightning_meta.mapping.inductor import channels_last, missing_compiler
from lightning_meta.mapping.loss_scale import loss_scale, unscaled
from lightning_meta.mapping.multi_tensor import magnitudes
from lightning_meta.mapping.normalisation import batches_of, normalise
from lightning_meta.mapping.randomness import MappableDraws, kept_generators, seeded, vmap_with_draws
from lightning_meta.mapping.recurrence import exact_recurrence

__all__ = [
    "ChunkGradient",
    "Compiled",
    "MappableDraws",
    "MetaGradient",
    "RoutedConvolutions",
    "author_line",
    "batches_of",
    "channels_last",
    "chunk_gradient",
    "defined_at",
    "exact_attention",
    "exact_embedding",
    "exact_recurrence",
    "kept_generators",
    "line_of_change",
    "loss_scale",
    "magnitudes",
    "map_tasks",
    "meta_gradient",
    "missing_compiler",
    "normalise",
    "out_of_memory",
    "seeded",
    "unscaled",
    "vmap_with_draws",
    "with_gradient",
]
