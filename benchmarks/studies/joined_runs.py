"""Runs of distributed MAML for `distributed.py`: real workers, copies that take turns in one process, joinings alone.

    python benchmarks/studies/joined_runs.py WORKERS ROOT SEED FILE RUN...

trains in that many processes, one after the other, the runs ``TASKS:STEPS[,STEPS...]``: tasks of a worker in a
meta-step, and the meta-steps after which the clock is read. Worker 0 writes the seconds to FILE.
"""

import json
import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_meta.algorithms import MAML
from lightning_meta.backbones import Conv4
from lightning_meta.data import OmniglotEpisodes
from lightning_meta.distributed import ArithmeticMean, JoinWeights, LocalWorkers, WeightGenerator
from lightning_meta.distributed.join_weights import join
from lightning_meta.inner import SGD, InnerLoop, last
from lightning_meta.mapping import map_tasks
from lightning_meta.params import Params
from lightning_meta.process import keep_freed_memory

EVERY = 5  # meta-steps from one joining to the next
WARM = EVERY  # meta-steps before the clock starts: the first one traces the graph
INNER_STEPS = 3  # at test
TEST_TASKS = 200
JOININGS = 20  # that are timed


def quiet() -> None:
    """One thread a worker, and nothing said on the way."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    keep_freed_memory()


def learner_of(seed: int) -> MAML:
    """As `configs/omniglot/soulier_5w1s_maml.yaml`."""
    torch.manual_seed(seed)
    inner = InnerLoop(SGD(0.4), steps=1, evaluation_steps=INNER_STEPS)
    network = Conv4(outputs=5, head="mean")
    return MAML(network, inner, optimizer=lambda weights: torch.optim.Adam(weights, lr=0.01), task_chunk=16)


def data_of(root: str, seed: int, meta_batch_size: int) -> OmniglotEpisodes:
    """As `configs/omniglot/soulier_5w1s_maml.yaml`."""
    return OmniglotEpisodes(root=root, split="finn", rotations="tasks", meta_batch_size=meta_batch_size, seed=seed)


class Clock(Callback):
    """Seconds of every meta-step after the first ones, with sampling, logging and joining."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.steps = 0
        self.started = 0.0  # time of day when training starts

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.started, self.since = time.time(), time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        now = time.perf_counter()
        self.steps += 1
        if self.steps > WARM:
            self.seconds.append(now - self.since)
        self.since = now


class Accuracy(Callback):
    """Accuracy on unseen classes after these meta-steps, without the time that it takes.

    Args:
        marks: meta-steps, without the first ones that the clock leaves out.
        clock: stands still meanwhile.
        turns: batches of a meta-step.
    """

    def __init__(self, marks: list[int], clock: Clock, turns: int = 1) -> None:
        self.marks, self.clock, self.turns = marks, clock, turns
        self.found: dict[int, tuple[float, float]] = {}  # mean and half the 95% interval over tasks

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        steps, rest = divmod(trainer.global_step, self.turns)
        if rest == 0 and steps - WARM in self.marks:
            assert isinstance(pl_module, MAML)
            right = accuracies(pl_module, trainer.datamodule)  # type: ignore[attr-defined]
            self.found[steps - WARM] = (right.mean().item(), 1.96 * right.std().item() / len(right) ** 0.5)
            self.clock.since = time.perf_counter()


@torch.no_grad()
def accuracies(learner: MAML, data: OmniglotEpisodes) -> Tensor:
    """Transductive accuracy of every test task, (tasks,)."""

    def score(params: Params, task: Any) -> Tensor:
        adapted, _ = last(learner.adapt(params, task))
        return (learner.run_backbone(adapted, task.query_x).argmax(-1) == task.query_y).float().mean()

    episode = data.draw("test", torch.arange(TEST_TASKS))
    chunks = [map_tasks(score, (None, 0), learner.meta_parameters(), tasks) for tasks in episode.chunks(16)]
    return torch.cat(chunks)


class Copies(Callback):
    """Workers that take turns in one process: a batch each, on a copy and an optimizer state of its own.

    The same as `JoinWeights` with as many processes, but that worker w's tasks are those of batch w of a meta-step.
    """

    def __init__(self, workers: int, generator: WeightGenerator) -> None:
        self.workers, self.generator = workers, generator
        self.weights: list[list[Tensor]] = []
        self.states: list[Any] = [defaultdict(dict) for _ in range(workers)]
        self.losses: list[list[Tensor]] = [[] for _ in range(workers)]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        parameters = list(pl_module.parameters())
        if not self.weights:
            self.weights = [[tensor.detach().clone() for tensor in parameters] for _ in range(self.workers)]
        worker = batch_idx % self.workers
        put(parameters, self.weights[worker])
        trainer.optimizers[0].state = self.states[worker]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        parameters, worker = list(pl_module.parameters()), batch_idx % self.workers
        put(self.weights[worker], parameters)
        self.losses[worker] = [*self.losses[worker], outputs["loss"].double()][-5:]
        steps, rest = divmod(trainer.global_step, self.workers)
        if rest == 0 and steps % EVERY == 0:
            shares = self.generator(torch.stack([torch.stack(losses) for losses in self.losses])).tolist()
            copies = [
                [*weights, *(value for parameter in parameters for value in state[parameter].values())]
                for weights, state in zip(self.weights, self.states, strict=True)
            ]
            for tensors in zip(*copies, strict=True):
                joined = sum(share * tensor.double() for share, tensor in zip(shares, tensors, strict=True))
                for tensor in tensors:
                    tensor.copy_(joined)
            put(parameters, self.weights[0])


@torch.no_grad()
def put(places: list[Tensor], values: list[Tensor]) -> None:
    """Write the values into their places."""
    for place, value in zip(places, values, strict=True):
        place.copy_(value)


def train(root: str, seed: int, tasks: int, steps: int, callbacks: list[Callback], **more: Any) -> None:
    """A `Trainer.fit` of that many batches, and of those before the clock starts."""
    trainer = Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, log_every_n_steps=0,
        callbacks=callbacks, **more,
    )  # fmt: skip
    trainer.fit(learner_of(seed), data_of(root, seed, tasks))


def joining_seconds(rank: int, workers: int, folder: str, results: Any) -> None:
    """One process of those that join a learner and Adam's moments; the first one tells the median."""
    quiet()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/{workers}", rank=rank, world_size=workers
    )
    tensors = [tensor.detach().clone() for tensor in learner_of(0).parameters() for _ in range(3)]
    told = torch.zeros(6, dtype=torch.float64)
    seconds = []
    for _ in range(JOININGS):
        torch.distributed.barrier()
        start = time.perf_counter()
        torch.distributed.all_gather([torch.empty_like(told) for _ in range(workers)], told)
        join(tensors, torch.tensor(1 / workers), torch.device("cpu"))
        seconds.append(time.perf_counter() - start)
    if rank == 0:
        results.put((statistics.median(seconds), 8 * sum(tensor.numel() for tensor in tensors)))
    torch.distributed.destroy_process_group()


def measure_joining(workers: int) -> tuple[float, int]:
    """Seconds and bytes of a joining of that many processes of this machine."""
    context = multiprocessing.get_context("fork")  # which saves every process its imports
    results: Any = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=joining_seconds, args=(rank, workers, folder, results)) for rank in range(workers)
        ]
        for process in processes:
            process.start()
        found: tuple[float, int] = results.get(timeout=120)
        for process in processes:
            process.join()
    return found


def main(workers: int, root: str, seed: int, file: Path, runs: list[str]) -> None:
    """Train, and write for every run the seconds up to each reading, and when the first began."""
    quiet()
    readings: list[list[float]] = []
    started = 0.0
    for run in runs:
        tasks, marks = int(run.split(":")[0]), [int(mark) for mark in run.split(":")[1].split(",")]
        clock = Clock()
        joining: list[Callback] = [JoinWeights(ArithmeticMean(), EVERY)] if workers > 1 else []
        more: dict[str, Any] = {"strategy": LocalWorkers()} if workers > 1 else {}
        train(root, seed, tasks * workers, max(marks) + WARM, [*joining, clock], devices=workers, **more)
        readings.append([sum(clock.seconds[:mark]) for mark in marks])
        started = started or clock.started
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        file.write_text(json.dumps({"readings": readings, "started": started}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
