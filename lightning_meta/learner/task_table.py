"""The scores of every single task of an evaluation, gathered from all ranks."""

import hashlib

import torch
from torch import Tensor, distributed

from lightning_meta.episode import Episode

_KINDS = "query_accuracy", "query_nontransductive_accuracy", "query_loss", "query_nontransductive_loss"


class TaskTable:
    """Query scores by task, with a digest of the tasks: accuracies where there are classes, otherwise losses.

    Attributes:
        tasks: hash of the numbers of all tasks and of two rows of each, the same for the same tasks alone.
        metrics: scores after every scored step, (tasks, scored steps), in the order of the numbers.
    """

    def __init__(self) -> None:
        self._rows: dict[int, tuple[bytes, dict[str, list[float]]]] = {}
        self.tasks = ""
        self.metrics: dict[str, list[list[float]]] = {}

    def add(self, episode: Episode, values: dict[str, Tensor]) -> None:
        """Take in the scores of these tasks, each (tasks, scored steps)."""
        names = [name for name in _KINDS if name in values][:2]
        ends = torch.stack([episode.support_x[:, 0], episode.query_x[:, -1]], 1).cpu().contiguous()
        scores = {name: values[name].double().cpu().tolist() for name in names}
        for place, number in enumerate(episode.task_ids.tolist()):
            digest = hashlib.blake2b(ends[place].flatten().view(torch.uint8).numpy().tobytes(), digest_size=16).digest()
            self._rows[number] = digest, {name: scores[name][place] for name in names}

    def gather(self) -> None:
        """Fill `tasks` and `metrics` with what all ranks took in; a collective."""
        parts = [self._rows]
        if distributed.is_available() and distributed.is_initialized():
            parts *= distributed.get_world_size()
            distributed.all_gather_object(parts, self._rows)
        rows = dict(sorted((number, row) for part in parts for number, row in part.items()))
        digest = hashlib.blake2b(digest_size=16)
        for number, (of_task, _) in rows.items():
            digest.update(number.to_bytes(8, "big", signed=True) + of_task)
        self.tasks = digest.hexdigest()
        names = next((list(scores) for _, scores in rows.values()), [])
        self.metrics = {
            name: [[round(value, 6) for value in scores[name]] for _, scores in rows.values()] for name in names
        }
