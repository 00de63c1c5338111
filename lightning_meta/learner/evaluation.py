"""Predictions for batches of tasks: each task as a whole, or by one graph of an inner step that is repeated."""

import math
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_meta.episode import Episode, EpisodeSource, Predictions
from lightning_meta.learner.chunk_size import ChunkSize
from lightning_meta.learner.fusion import Compile, Fusion
from lightning_meta.learner.run_length import evaluation_batches_left
from lightning_meta.learner.running import evaluating
from lightning_meta.mapping import Compiled, channels_last, map_tasks, out_of_memory, seeded
from lightning_meta.params import Params

if TYPE_CHECKING:
    from lightning_meta.learner.meta_learner import MetaLearner

_SHORT = 30.0  # seconds, which are worth the kernels of no network
_TOLERANCE = 1e-3  # relative; two ways round differently on a GPU
_LOOPS = "predictions", "adapted_weights", "adapt"  # what sees several steps, and may compare them


class AnyStep:
    """The number of an inner step where nothing may depend on it: that is not compared, and no index."""

    def __add__(self, other: int) -> "AnyStep":
        return self

    def __eq__(self, other: object) -> bool:
        raise TypeError("an inner step is not like the others")

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise TypeError("an inner step is not like the others")

    def __format__(self, form: str) -> str:
        raise TypeError("an inner step is not like the others")

    __str__ = __bool__  # type: ignore[assignment]


class _Counting(TorchDispatchMode):
    """Counts PyTorch's operations."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


class Evaluation:
    """Maps a learner's ``predictions``, a function of one task, over tasks.

    Where all inner steps are alike, one of them, with the outputs before it where these are scored, is one function
    that is called again and again: fifty of them take no longer to compile than one. It becomes a CUDA graph on a GPU,
    and fused kernels on a CPU if the tasks that are left take so long that compiling is worth it.

    Args:
        learner: whose predictions are mapped.
        task_chunk: as in `MetaLearner`.
        compile: as in `MetaLearner`.
    """

    def __init__(self, learner: "MetaLearner", task_chunk: int | Literal["auto"], compile: Compile) -> None:  # noqa: A002
        self._learner, self._compiles = learner, compile is not False
        self._chunk = ChunkSize(task_chunk)  # so that no score depends on what training chose
        self.fusion = Fusion(compile != "graph" and self._compiles, "an evaluation")
        self.prepare()

    def prepare(self) -> None:
        """Start a run."""
        self.release()
        self.fusion.reopen()

    def release(self) -> None:
        """Drop the graphs, which cannot be pickled and hold memory."""
        self._graphs: dict[str, Any] = {}
        self._alike: bool | None = None  # whether all inner steps are; None before that is known
        self._fused_kinds: Any = None  # of the tasks that kernels were made for
        self._fused_size = 1  # of the chunks that kernels were made for

    def predictions(self, episode: Episode) -> Predictions:
        """Predictions of every task with dropout off, each tensor (tasks, scored steps, rows, outputs)."""
        kinds = [(tensor.shape[1:], tensor.dtype) for tensor in episode]
        trainer = self._learner._trainer
        known = self.fusion.settled or episode.support_x.is_cuda  # where a graph is recorded anyway
        open_question = not (known or trainer is None or trainer.training or trainer.sanity_checking)
        with evaluating(self._learner):
            if open_question and self.fusion.chosen and self._steps_are_alike(episode):
                self._settle(episode, kinds, trainer, 0.0)

            def by_graph() -> Predictions:
                return self._chunk.halve_on_out_of_memory(partial(self._run, episode), episode.tasks)

            if kinds == self._fused_kinds:
                return self.fusion.run(partial(self._run, episode, self._fused_size, fused=True), by_graph)
            start = time.perf_counter()
            result = by_graph()
            if open_question and self.fusion.chosen is None:
                self._settle(episode, kinds, trainer, time.perf_counter() - start)
        return result

    def _settle(self, episode: Episode, kinds: Any, trainer: Any, seconds: float) -> None:
        """Make kernels for tasks of these kinds, of which a batch took so many seconds, if that is worth it."""
        self._fused_size = 1 if self._learner.task_map.one_by_one else min(self._chunk.size, episode.tasks)
        left = evaluation_batches_left(trainer)

        def operations() -> float:
            repeated = left * seconds > _SHORT and self._steps_are_alike(episode)
            return sum(self._operations.values()) if repeated else math.inf

        self.fusion.settle(
            self._learner,
            False,
            lambda: seconds,
            partial(self._run, episode, self._fused_size, fused=True),
            operations,
            left,
            bool,  # every rank for itself, since none shares a graph
        )
        self._fused_kinds = kinds if self.fusion.chosen else None

    def _run(self, episode: Episode, size: int, fused: bool = False) -> Predictions:
        with seeded(episode.task_ids.device, "evaluation", self._seed, *episode.task_ids[:1].tolist()):
            # Kernels are of one size, and a rest of the tasks is not worth its own.
            chunks = [self._mean_predictions(tasks, fused and tasks.tasks == size) for tasks in episode.chunks(size)]
        return Predictions(*(torch.cat(parts) for parts in zip(*chunks, strict=True)))

    @property
    def _seed(self) -> int:
        """That of the data, which a resumed run has again; PyTorch's where there are no such data."""
        source = getattr(self._learner._trainer, "datamodule", None)
        return source.seed if isinstance(source, EpisodeSource) else torch.initial_seed()

    def _mean_predictions(self, tasks: Episode, fused: bool) -> Predictions:
        """The mean over the members of an ensemble, where the learner is one."""
        learner, run = self._learner, self._whole
        # Launching an evaluation's operations one by one costs a GPU most of its time, and a CPU little.
        if fused or (self._compiles and tasks.support_x.is_cuda):
            run = partial(self._step_by_step, fused) if self._steps_are_alike(tasks) else self._compiled("whole", run)
        own = learner.evaluation_carry(tasks)
        weights = learner.ensemble or [(learner.meta_parameters(), own)]
        members = [run(params, tasks, own if learner.carry_per_task else carry) for params, carry in weights]
        return Predictions(*(sum(parts) / len(members) for parts in zip(*members, strict=True)))

    def _compiled(self, name: str, function: Any, fused: bool = False) -> Any:
        if name not in self._graphs:
            self._graphs[name] = Compiled(function, self._learner.task_map.constants, "an evaluation", fused)
        return self._graphs[name]

    def _whole(self, params: Params, tasks: Episode, carry: Any) -> Predictions:
        in_dims = None, 0, 0 if self._learner.carry_per_task else None
        predictions: Predictions = map_tasks(partial(_scored, self._learner), in_dims, params, tasks, carry)
        return predictions

    def _step_by_step(self, fused: bool, params: Params, tasks: Episode, carry: Any) -> Predictions:
        score, step = (self._compiled(*part, fused).for_now() for part in _parts(self._learner).items())
        params = channels_last(params) if fused else params
        return self._repeat(score, step, params, tasks, carry)

    def _repeat(
        self, score: Callable[..., Any], step: Callable[..., Any], params: Params, tasks: Episode, carry: Any
    ) -> Predictions:
        """The predictions by `_advance` where they are scored, and by `_step` where they are not, for several tasks."""
        in_dims = None, 0, 0 if self._learner.carry_per_task else None
        now = map_tasks(partial(_begin, self._learner), in_dims, params, tasks, carry)
        orders = tasks.inner_order.split(1, 1)
        scored, outputs = self._learner.scored_steps(len(orders)), []
        for number, order in enumerate([*orders, orders[-1]]):  # after the last step, the outputs are wanted alone
            rows = tasks._replace(inner_order=order)
            if number in scored:
                here, now = score(params, rows, now)
                outputs.append(here)
            else:
                now = step(params, rows, now)
        return Predictions(*(torch.stack(parts, 1) for parts in zip(*outputs, strict=True)))

    def _steps_are_alike(self, episode: Episode) -> bool:
        """Whether repeating a step that does not know its number gives the predictions, tried on one task."""
        if self._alike is None:
            task, learner = next(episode.chunks(1)), self._learner
            if not all(_is_own(learner, name) for name in _LOOPS):
                self._alike = False  # what a method's own loop does may differ in other tasks
                return False
            given = learner.meta_parameters(), task, learner.evaluation_carry(task)
            self._operations: dict[str, int] = {}  # of each kind of step that is taken
            try:
                every = self._whole(*given)
                score, step = (partial(self._counted, *part) for part in _parts(learner).items())
                repeated = self._repeat(score, step, *given)
                self._alike = all(map(_close, every, repeated))
            except Exception as error:
                if out_of_memory(error):
                    raise
                self._alike = False
        return self._alike

    def _counted(self, name: str, part: Callable[..., Any], *arguments: Any) -> Any:
        """What a kind of step gives, of which the operations are counted."""
        with _Counting() as counting:
            result = part(*arguments)
        self._operations[name] = counting.count
        return result


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).norm() <= _TOLERANCE * one.norm())


def _begin(learner: "MetaLearner", params: Params, task: Episode, carry: Any) -> tuple[Params, Any]:
    """Weights and the rule's state before the first inner step."""
    fast, state = learner.start(params, task), learner.inner_state(carry)
    return fast, learner.inner.optimizer.init(fast) if state is None else state


def _advance(
    learner: "MetaLearner", params: Params, task: Episode, now: tuple[Params, Any]
) -> tuple[Predictions, tuple[Params, Any]]:
    """Outputs before an inner step, and weights and state after it."""
    steps = learner.adapt(params, task, now[1], start=now[0], first=AnyStep())
    (weights, _), (after, state) = islice(steps, 2)
    return learner.predictions_at(weights, task), ({name: after[name] for name in now[0]}, state)


def _step(learner: "MetaLearner", params: Params, task: Episode, now: tuple[Params, Any]) -> tuple[Params, Any]:
    """Weights and state after an inner step."""
    _, (after, state) = islice(learner.adapt(params, task, now[1], start=now[0], first=AnyStep()), 2)
    return {name: after[name] for name in now[0]}, state


def _parts(learner: "MetaLearner") -> dict[str, Callable[..., Any]]:
    """A step for several tasks, where it is scored and where it is not."""
    parts = {"scored": _advance, "unscored": _step}
    return {name: partial(map_tasks, partial(part, learner), (None, 0, 0)) for name, part in parts.items()}


def _scored(learner: "MetaLearner", params: Params, task: Episode, carry: Any) -> Predictions:
    """`MetaLearner.predictions` at the scored steps."""
    scored = learner.scored_steps(len(task.inner_order))
    if not _is_own(learner, "predictions"):
        every = learner.predictions(params, task, carry)
        # One by one: a list as an index is copied to a GPU, which no CUDA graph can hold.
        return Predictions(*(torch.stack([outputs[step] for step in scored]) for outputs in every))
    weights = (w for step, w in enumerate(learner.adapted_weights(params, task, carry)) if step in scored)
    steps = [learner.predictions_at(each, task) for each in weights]
    return Predictions(*map(torch.stack, zip(*steps, strict=True)))


def _is_own(learner: "MetaLearner", name: str) -> bool:
    """Whether a method is `MetaLearner`'s, and no other class has put its own in the place."""
    return bool(getattr(type(learner), name).__module__ == f"{__package__}.meta_learner")
