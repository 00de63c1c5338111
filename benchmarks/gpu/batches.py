"""One fixed batch of tasks for the GPU job, of drawn characters of Omniglot's size."""

from functools import cache

import torch

from lightning_meta.data import GlyphEpisodes
from lightning_meta.episode import Episode, InnerBatches
from lightning_meta.learner import MetaLearner


@cache
def data_of(ways: int, shots: int, queries: int, tasks: int) -> GlyphEpisodes:
    """The data module, which draws its characters once."""
    return GlyphEpisodes(
        ways=ways, shots=shots, queries=queries, meta_batch_size=tasks, train_classes=40, validation_tasks=0,
        test_tasks=0,
    )  # fmt: skip


def batch(data: GlyphEpisodes, learner: MetaLearner, device: torch.device, dtype: torch.dtype) -> Episode:
    """The first tasks of its training, as the inner loop of ``learner`` wants them."""
    data.connect(learner.training_batches(), InnerBatches())
    drawn = data.draw("train", torch.arange(data.meta_batch_size))
    return Episode(*(t.to(device, dtype) if t.is_floating_point() else t.to(device) for t in drawn))
