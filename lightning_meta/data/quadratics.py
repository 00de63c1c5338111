"""Quadratic functions to optimise (Andrychowicz et al., arXiv 1606.04474, section 3.1)."""

from dataclasses import dataclass, field

from torch import Tensor

from lightning_meta.data.drawing.data_module import EpisodeDataModule, check_at_least
from lightning_meta.data.drawing.task_random import TaskRandom, inner_order
from lightning_meta.episode import Episode, Split


@dataclass(kw_only=True, eq=False)
class QuadraticEpisodes(EpisodeDataModule):
    """Tasks f(theta) = ||W theta - y||^2 with a square W and y, all entries independent and standard normal.

    The rows of W are inputs and the entries of y targets of a linear network without bias,
    ``torch.nn.Linear(10, 1, bias=False)``, whose squared error, summed over the rows, is f. The queries of a task are
    the same rows: f itself is to be minimised. The splits are disjoint streams of random functions.

    Args:
        dimensions: entries of theta and of y.
    """

    outputs = 1
    queries_are_support = True

    dimensions: int = 10
    ways: int = field(default=1, init=False)
    shots: int = field(init=False)
    queries: int = field(init=False)
    train_ways: int | None = field(default=None, init=False)
    train_shots: int | None = field(default=None, init=False)
    train_queries: int | None = field(default=None, init=False)
    meta_batch_size: int = 128
    validation_tasks: int = 1000
    test_tasks: int = 1000

    def __post_init__(self) -> None:
        check_at_least(1, dimensions=self.dimensions)
        self.shots = self.queries = self.dimensions
        super().__post_init__()

    def draw(self, split: Split, numbers: Tensor) -> Episode:
        """The functions of these numbers."""
        random = TaskRandom(self.seed, split, numbers)
        w = random.normal(self.dimensions, self.dimensions)
        y = random.normal(self.dimensions, 1)
        order = inner_order(random, self.dimensions, *self.inner_batches(split))
        return Episode(w, y, w, y, order, numbers, numbers.new_empty(len(numbers), 0))
