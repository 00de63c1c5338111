"""Quadratic functions to optimise (Andrychowicz et al., arXiv 1606.04474, section 3.1)."""

from torch import Tensor

from lightning_meta.data.drawing.data_module import EpisodeDataModule
from lightning_meta.data.drawing.task_random import TaskRandom, inner_order
from lightning_meta.episode import Episode, Split


class QuadraticEpisodes(EpisodeDataModule):
    """Tasks f(theta) = ||W theta - y||^2 with a square W and y, all entries independent and standard normal.

    The rows of W are inputs and the entries of y targets of a linear network without bias,
    ``torch.nn.Linear(10, 1, bias=False)``, whose squared error, summed over the rows, is f. The queries of a task are
    the same rows: it is f itself that is to be low. The splits are disjoint streams of random functions.

    Args:
        dimensions: of theta and y.
        meta_batch_size: functions in a meta-step, over all ranks.
        validation_tasks: functions in one validation.
        test_tasks: functions in a test.
        seed: names the stream of functions.
        num_workers: processes that draw ahead; 0 draws in the main process.
    """

    outputs = 1

    def __init__(
        self,
        dimensions: int = 10,
        meta_batch_size: int = 128,
        validation_tasks: int = 1000,
        test_tasks: int = 1000,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            1, dimensions, dimensions, None, None, meta_batch_size, validation_tasks, test_tasks, seed, num_workers
        )
        self.dimensions = dimensions

    def draw(self, split: Split, numbers: Tensor) -> Episode:
        """The functions of these numbers."""
        random = TaskRandom(self.seed, split, numbers)
        w = random.normal(self.dimensions, self.dimensions)
        y = random.normal(self.dimensions, 1)
        order = inner_order(random, self.dimensions, *self.inner_batches(split))
        return Episode(w, y, w, y, order, numbers, numbers.new_empty(len(numbers), 0))
