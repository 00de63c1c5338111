"""What a person waits for beside the meta-gradient: a run of a small network, and evaluations.

    python benchmarks/speed/whole_runs.py

One thread. Meta-steps a second of `sinusoid/finn_10shot_maml` in Lightning's loop, drawing and logging included, by
the graph and by fused kernels; and milliseconds that evaluating a task of 5-way 1-shot takes, both protocols before and
after each of ten inner steps of a Conv-4, task by task and by a repeated step as fused kernels; and Reptile's fifty
steps as fused kernels, scored after every step and after those of `scored_steps`. Medians of three turns.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.nn import functional

from lightning_meta import MAML, MLP, Conv4, GlyphEpisodes, InnerLoop, Reptile, SinusoidEpisodes
from lightning_meta.inner import SGD, Adam
from lightning_meta.learner.running import evaluating
from lightning_meta.noise import silence
from lightning_meta.process import keep_freed_memory

WARM_UP, STEPS, TURNS = 500, 3000, 3
TASKS = 32


class Clock(Callback):
    """Seconds from the end of the warm-up to the last meta-step."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == WARM_UP:
            self.start = time.perf_counter()
        if batch_idx + 1 == WARM_UP + STEPS:
            self.seconds = time.perf_counter() - self.start


def sinusoid_rate(compile: str) -> float:  # noqa: A002
    """Meta-steps a second."""
    learner = MAML(
        MLP(1, 1, [40, 40]), InnerLoop(SGD(0.01), steps=1), loss=functional.mse_loss, task_chunk=64,
        compile=compile, optimizer=lambda parameters: torch.optim.Adam(parameters, fused=True),
    )  # fmt: skip
    data = SinusoidEpisodes(shots=10, train_queries=10, meta_batch_size=25, validation_tasks=0)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu", max_steps=WARM_UP + STEPS, callbacks=[clock], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=Path(folder),
            log_every_n_steps=500,
        )  # fmt: skip
        trainer.fit(learner, data)
    return STEPS / clock.seconds


def evaluation_times() -> tuple[list[float], list[float], float]:
    """Seconds a task by turns, as whole tasks and by a repeated step, and the seconds that compiling took."""
    data = GlyphEpisodes(ways=5, shots=1)
    learner = MAML(Conv4(outputs=5), InnerLoop(SGD(0.4), steps=1, evaluation_steps=10))
    data.connect(learner.training_batches(), learner.evaluation_batches())
    episode = data.draw("test", torch.arange(TASKS))
    learner.task_map.prepare()
    evaluation, sizes = learner.evaluation, {False: learner.task_map.chunk.size, True: 1}
    times: dict[bool, list[float]] = {False: [], True: []}
    with evaluating(learner):
        assert evaluation._steps_are_alike(episode)
        evaluation._run(episode, sizes[False])
        start = time.perf_counter()
        evaluation._run(episode, sizes[True], fused=True)
        compiled = time.perf_counter() - start
        for _ in range(TURNS):
            for fused, seconds in times.items():
                start = time.perf_counter()
                evaluation._run(episode, sizes[fused], fused=fused)
                seconds.append((time.perf_counter() - start) / TASKS)
    return times[False], times[True], compiled


def scoring_times(shots: int) -> tuple[list[float], list[float]]:
    """Seconds a task of Reptile's fifty steps by turns, scored after every step, and after some."""
    learners, times = [], ([], [])
    for scored in (lambda steps: list(range(steps + 1)), Reptile.scored_steps):
        inner = InnerLoop(Adam(0.001, beta1=0.0), 5, batch_size=10, evaluation_steps=50, evaluation_batch_size=5)
        learner = Reptile(Conv4(outputs=5, head="flatten"), inner)
        learner.scored_steps = scored  # type: ignore[assignment]
        learner.task_map.prepare()
        learners.append(learner)
    data = GlyphEpisodes(ways=5, shots=shots)
    data.connect(learner.training_batches(), learner.evaluation_batches())
    episode = data.draw("test", torch.arange(TASKS // 4))
    for turn in range(TURNS + 1):
        for learner, seconds in zip(learners, times, strict=True):
            with evaluating(learner):
                assert learner.evaluation._steps_are_alike(episode)
                start = time.perf_counter()
                learner.evaluation._run(episode, 1, fused=True)
                if turn:
                    seconds.append((time.perf_counter() - start) / episode.tasks)
    return times


def main() -> None:
    """Measure, and print."""
    torch.set_num_threads(1)
    keep_freed_memory()
    silence()
    rates: dict[str, list[float]] = {"graph": [], "fused": []}
    for _ in range(TURNS):
        for way, found in rates.items():
            found.append(sinusoid_rate(way))
    for way, found in rates.items():
        print(f"sinusoid, {way}: {_summary(found, 1)} meta-steps a second")
    whole, repeated, compiled = evaluation_times()
    ratios = [one / other for one, other in zip(whole, repeated, strict=True)]
    print(f"evaluation of a task: whole {_summary(whole, 1e3)} ms, repeated step {_summary(repeated, 1e3)} ms")
    print(f"ratio {_summary(ratios, 1)}; compiled in {compiled:.0f} s")
    for shots in (1, 5):
        every, some = scoring_times(shots)
        ratios = [one / other for one, other in zip(every, some, strict=True)]
        print(
            f"50 steps of a {shots}-shot task: scored after each {_summary(every, 1e3)} ms, after some "
            f"{_summary(some, 1e3)} ms, ratio {_summary(ratios, 1)}"
        )


def _summary(values: list[float], scale: float) -> str:
    scaled = [scale * value for value in values]
    return f"{statistics.median(scaled):.3g} ({min(scaled):.3g} to {max(scaled):.3g})"


if __name__ == "__main__":
    main()
