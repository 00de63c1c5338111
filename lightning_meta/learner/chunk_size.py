"""How many tasks are vectorised together: the fastest number that fits into memory."""

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import psutil
import torch
from pytorch_lightning.utilities import rank_zero_info

from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.timing import seconds_of
from lightning_meta.mapping import out_of_memory
from lightning_meta.process import growth

Result = TypeVar("Result")

_USUAL = 16  # good on every machine that was measured
_STEP = 4  # from one larger candidate to the next
_BETTER = 0.9  # of the usual size's time, at most: what is within noise falls the same way each time
_LONG = 60.0  # seconds of a run, from where other sizes are worth their tracing
_MEMORY = 0.7  # of what is free, the part that a candidate may take


class ChunkSize:
    """The number of tasks in a chunk: given, or chosen by `tune`, and halved when memory runs out.

    Args:
        setting: the number, or ``auto``.
    """

    def __init__(self, setting: int | Literal["auto"]) -> None:
        self.tuned = setting != "auto"  # the same on all ranks, which tune together
        self.size = _USUAL if setting == "auto" else setting

    def restore(self, size: int | None) -> None:
        """Take over what a checkpoint holds, if anything, unless a number was given."""
        if size is not None and not self.tuned:
            self.tuned, self.size = True, size

    def tune(
        self,
        run: Callable[[int], Any],
        tasks: int,
        device: torch.device,
        share: Callable[[Any], Any],
        steps: float = math.inf,
    ) -> None:
        """Time some sizes on a real batch, and take another than 16 if it is clearly faster; only once.

        Where PyTorch is to be deterministic, nothing is timed: another size would round in another way. Nor on a GPU,
        which is fastest with all tasks at once; `halve_on_out_of_memory` makes them fit. Short runs take 16.

        Args:
            run: computes the meta-gradient of that many tasks, without side effects.
            tasks: tasks in the batch.
            device: where it runs.
            share: gives every rank what rank 0 took.
            steps: meta-steps that are left.
        """
        if self.tuned:
            return
        usual = min(_USUAL, tasks)
        self.tuned, self.size = True, tasks if device.type == "cuda" else usual
        if tasks == 1 or device.type == "cuda" or torch.are_deterministic_algorithms_enabled():
            return
        seconds = self._timed(run, tasks, usual, steps)
        fastest = min(seconds, key=lambda size: seconds[size])
        clear = usual not in seconds or seconds[fastest] < _BETTER * seconds[usual]
        self.size = share(fastest if clear else usual)
        measured = ", ".join(f"{size}: {1e3 * value:.3g} ms" for size, value in seconds.items())
        rank_zero_info(f"model.task_chunk: auto takes {self.size} (time a task, by size of chunk: {measured})")

    def _timed(self, run: Callable[[int], Any], tasks: int, usual: int, steps: float) -> dict[int, float]:
        """Seconds a task, by size: the usual one, a loop, then larger ones up to the first that is slower."""
        larger = [usual * _STEP**power for power in range(1, 16) if usual * _STEP**power < tasks]
        seconds: dict[int, float] = {}
        free, needed = psutil.virtual_memory().available, 0.0  # bytes, bytes for each task
        for size in [usual, 1, *larger, *([tasks] if tasks > usual else [])]:
            if seconds and size * needed > _MEMORY * free:
                break
            try:
                needed = max(needed, growth(lambda: run(size)) / size)  # noqa: B023
                seconds[size] = seconds_of(lambda: run(size)) / size  # noqa: B023
            except Exception as error:
                if size == 1 or not out_of_memory(error):
                    raise
                return seconds if seconds else self._timed(run, tasks, usual // 2, steps)
            if size == usual and seconds[size] * tasks * steps < _LONG:
                break
            if size > usual and seconds[size] > 1.2 * min(seconds.values()):
                break
        return seconds

    def halve_on_out_of_memory(self, run: Callable[[int], Result], tasks: int) -> Result:
        """What ``run`` returns for this size, or for the largest half, quarter, ... of it that memory allows.

        Before a size is chosen, as in an evaluation without training, it is 16.

        Args:
            run: computes something of all tasks, in chunks of that size.
            tasks: how many there are.

        Raises:
            MetaLearningError: memory does not suffice for one task.
        """
        while True:
            size = min(self.size, max(tasks, 1))
            try:
                return run(size)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                if size == 1:
                    raise MetaLearningError(
                        "memory does not suffice for a single task (model.task_chunk is 1): lower model.inner.steps, "
                        "data.shots or data.queries, or take a smaller backbone"
                    ) from error
            self.size = size // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            warnings.warn(
                f"memory ran out with model.task_chunk {size}: the step is repeated with {self.size}, which stays",
                stacklevel=2,
            )
