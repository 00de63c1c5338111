"""Milliseconds of a meta-step on the device: recorded, uncompiled, inside a whole fit, and as a loop over tasks.

Recorded twice: with a grouped convolution for all tasks, and with one batched product of their patches, as JAX has it.

    python benchmarks/gpu/rates.py DEVICE OUTPUT.json SECONDS

The loop stands for learn2learn, which this machine lacks: task by task, ``torch.autograd.grad`` inside, PyTorch's own
batch norm. Each is given as ``ms`` (many in a row), ``ms_waited_for`` (one, until the device is done) and
``first_s`` (the first, with tracing and recording).
"""

import signal
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from batches import batch, data_of
from pytorch_lightning import Callback, LightningModule, Trainer
from settings import FILTERS, METHODS, REHEARSAL, SETTINGS, WAYS, Rows, Setting, short
from torch import Tensor
from torch.nn import functional

from lightning_meta.algorithms import FOMAML, MAML, Reptile
from lightning_meta.backbones import Conv4
from lightning_meta.data import GlyphEpisodes
from lightning_meta.inner import SGD, Adam, InnerLoop
from lightning_meta.learner import MetaLearner
from lightning_meta.mapping import Compiled, chunk_gradient, meta_gradient
from lightning_meta.mapping.products import ConvolutionsAsProducts

Step = Callable[[], object]
LARGE = ("MAML 5w1s, 256 tasks", "MAML 5w1s, 5 inner steps")  # measured recorded alone: the others take seconds
LIMIT = 160 if REHEARSAL else 40  # seconds for one measurement
SPAN = 0.1 if REHEARSAL else 0.6  # seconds of measuring


def learner_of(setting: Setting) -> MetaLearner:
    """The algorithm on Omniglot's network."""
    torch.manual_seed(0)
    if setting.algorithm == "Reptile":
        inner = InnerLoop(Adam(1e-3, beta1=0.0), setting.inner_steps, 10)
        return Reptile(Conv4(WAYS, filters=FILTERS, head="flatten"), inner, lr_scheduler=None)
    kind = {"MAML": MAML, "FOMAML": FOMAML}[setting.algorithm]
    return kind(Conv4(WAYS, filters=FILTERS), InnerLoop(SGD(0.4), setting.inner_steps))


def data_for(setting: Setting) -> GlyphEpisodes:
    """Its tasks."""
    queries = 1 if setting.algorithm == "Reptile" else setting.shots
    return data_of(WAYS, setting.shots, queries, setting.tasks)


def our_step(setting: Setting, device: torch.device, recorded: bool, products: bool = False) -> Step:
    """The meta-gradient of all tasks at once, as a graph or operation by operation."""
    learner = learner_of(setting).to(device)
    episode = batch(data_for(setting), learner, device, torch.float32)

    def outer_loss(*given: Any) -> Any:
        with ConvolutionsAsProducts() if products else nullcontext():
            return learner.outer_loss(*given)

    function = chunk_gradient(outer_loss)
    if recorded:
        function = Compiled(function, lambda: [*learner.parameters(), *learner.buffers()])
    progress = torch.zeros((), device=device)
    params = learner.meta_parameters
    return lambda: meta_gradient(function, params(), episode, learner.training_carry(episode), progress)


def loop_over_tasks(setting: Setting, device: torch.device) -> Step:
    """The same meta-gradient as one writes it without this package."""
    learner = learner_of(setting).to(device)
    episode = batch(data_for(setting), learner, device, torch.float32)
    parameters = dict(learner.backbone.named_parameters())
    flat = setting.algorithm == "Reptile"

    def outputs(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        for layer in range(4):
            x = functional.conv2d(x, weights[f"{3 * layer}.weight"], weights[f"{3 * layer}.bias"], 2, 1)
            scale, shift = weights[f"{3 * layer + 1}.weight"], weights[f"{3 * layer + 1}.bias"]
            x = functional.batch_norm(x, None, None, scale, shift, True).relu()
        x = x.flatten(1) if flat else x.mean((-2, -1))
        return functional.linear(x, weights["13.weight"], weights["13.bias"])

    def reptile(task: int) -> None:
        x, y, order = episode.support_x[task], episode.support_y[task], episode.inner_order[task]
        fast = {key: value.detach().clone().requires_grad_() for key, value in parameters.items()}
        inner = torch.optim.Adam(fast.values(), 1e-3, betas=(0.0, 0.999))
        for rows in order:
            inner.zero_grad()
            functional.cross_entropy(outputs(fast, x[rows]), y[rows]).backward()
            inner.step()
        for key, parameter in parameters.items():
            assert parameter.grad is not None
            parameter.grad.add_(parameter.data - fast[key].data, alpha=1 / setting.tasks)

    def maml(task: int) -> None:
        fast = dict(parameters)
        for _ in range(setting.inner_steps):
            loss = functional.cross_entropy(outputs(fast, episode.support_x[task]), episode.support_y[task])
            grads = torch.autograd.grad(loss, list(fast.values()), create_graph=setting.algorithm == "MAML")
            fast = {key: value - 0.4 * grad for (key, value), grad in zip(fast.items(), grads, strict=True)}
        loss = functional.cross_entropy(outputs(fast, episode.query_x[task]), episode.query_y[task])
        (loss / setting.tasks).backward()

    def step() -> None:
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        for task in range(setting.tasks):
            reptile(task) if flat else maml(task)

    return step


def measure(make: Callable[[], Step], device: torch.device) -> dict[str, Any]:
    """Times of a step that is made first."""

    def timed(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    start = time.perf_counter()
    step = make()
    timed(1)
    first = time.perf_counter() - start
    timed(3)
    single = [timed(1) for _ in range(3)]
    while sum(single) < SPAN / 2:
        single.append(timed(1))
    count = max(int(SPAN / 2 / statistics.median(single)), 2)
    together = timed(count) / count
    return {
        "ms": round(1e3 * together, 3),
        "ms_waited_for": round(1e3 * statistics.median(single), 3),
        "first_s": round(first, 2),
    }


class Clock(Callback):
    """Ends a fit after some seconds of steady steps, and keeps when each ended."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began = 0.0
        self.times: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.times.append(time.perf_counter())
        trainer.should_stop = len(self.times) > 20 and self.times[-1] - self.times[5] > self.seconds


def whole_fit(setting: Setting, device: torch.device) -> dict[str, Any]:
    """`Trainer.fit` with sampling, the outer step and Lightning, without logging, validation and checkpoints."""
    clock = Clock(0.5 if REHEARSAL else 1.5)
    trainer = Trainer(
        max_steps=30 if REHEARSAL else 10**6, accelerator=device.type, devices=1, logger=False, callbacks=[clock],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        log_every_n_steps=0,
    )  # fmt: skip
    trainer.fit(learner_of(setting), datamodule=data_for(setting))
    steady = clock.times[5:]
    return {
        "ms": round(1e3 * (steady[-1] - steady[0]) / (len(steady) - 1), 3),
        "first_s": round(clock.times[0] - clock.began, 2),
    }


def too_long(*_: Any) -> None:
    """What the alarm clock does."""
    raise TimeoutError(f"this took longer than {LIMIT} s")


def main() -> int:
    """Measure until the time is up: what the trainings need first, then what is compared with it."""
    device, rows, end = torch.device(sys.argv[1]), Rows(sys.argv[2]), time.perf_counter() + float(sys.argv[3])
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, too_long)
    small = [name for name in SETTINGS if name not in LARGE]
    measurements: list[Callable[[Setting], dict[str, Any]]] = [
        lambda setting: measure(lambda: our_step(setting, device, True), device),
        lambda setting: whole_fit(setting, device),
        lambda setting: measure(lambda: our_step(setting, device, True, products=True), device),
        lambda setting: measure(lambda: our_step(setting, device, False), device),
        lambda setting: measure(lambda: loop_over_tasks(setting, device), device),
    ]
    for method, measured in zip(METHODS, measurements, strict=False):  # JAX, the last, has a script of its own
        for name in SETTINGS if method == METHODS[0] else small:
            row: dict[str, Any] = {"state": "no time left"}
            if time.perf_counter() < end:
                signal.alarm(LIMIT)
                try:
                    row = {**measured(SETTINGS[name]), "state": "ok"}
                except Exception as error:
                    traceback.print_exc()
                    row = {"state": short(error)}
                signal.alarm(0)
            rows.add(setting=name, method=method, **row)
    return rows.exit_status()


if __name__ == "__main__":
    sys.exit(main())
