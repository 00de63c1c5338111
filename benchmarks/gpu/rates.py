"""Milliseconds of a meta-step on the device: as a CUDA graph, fused or not, in a whole fit, and as a loop over tasks.

    python benchmarks/gpu/rates.py DEVICE OUTPUT.json SECONDS
    python benchmarks/gpu/rates.py DEVICE OUTPUT.json SECONDS SETTING TURN [TF32]

With a SETTING its fused kernels are measured instead: they are compiled at once, and run when the lock on the file TURN
is free. The loop stands for learn2learn, which this machine lacks: task by task, ``torch.autograd.grad`` inside,
PyTorch's own batch norm. Each is given as ``ms`` (many in a row), ``ms_waited_for`` (one, until the device is done) and
``first_s`` (the first, with tracing, compiling and recording). TF32 rounds what products multiply to ten bits, as
PyTorch does for convolutions unless told not to (``graph, float32``), and JAX for products.
``error`` is the distance of the fused gradient from that of the CPU in float64, relative to its norm.
"""

import fcntl
import signal
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
from batches import batch, data_of
from pytorch_lightning import Callback, LightningModule, Trainer
from settings import FILTERS, REHEARSAL, SETTINGS, WAYS, Rows, Setting, short
from torch import Tensor, nn
from torch.nn import functional

from lightning_meta.algorithms import FOMAML, MAML, Reptile
from lightning_meta.backbones import Conv4
from lightning_meta.data import GlyphEpisodes
from lightning_meta.episode import Episode
from lightning_meta.inner import SGD, Adam, InnerLoop
from lightning_meta.learner import MetaLearner
from lightning_meta.mapping import Compiled, chunk_gradient, meta_gradient
from lightning_meta.params import Params, map_params

Step = Callable[[], object]
LARGE = ("MAML 5w1s, 256 tasks", "MAML 5w1s, 5 inner steps")  # measured recorded alone: the others take seconds
LIMIT = 160 if REHEARSAL else 40  # seconds for one measurement
SPAN = 0.1 if REHEARSAL else 0.6  # seconds of measuring


def learner_of(setting: Setting, compile: Any = "graph") -> MetaLearner:  # noqa: A002  (as in `MetaLearner`)
    """The algorithm on Omniglot's network."""
    torch.manual_seed(0)
    if setting.algorithm == "Reptile":
        inner = InnerLoop(Adam(1e-3, beta1=0.0), setting.inner_steps, 10)
        return Reptile(Conv4(WAYS, filters=FILTERS, head="flatten"), inner, lr_scheduler=None, compile=compile)
    kind = {"MAML": MAML, "FOMAML": FOMAML}[setting.algorithm]
    return kind(Conv4(WAYS, filters=FILTERS), InnerLoop(SGD(0.4), setting.inner_steps), compile=compile)


def data_for(setting: Setting) -> GlyphEpisodes:
    """Its tasks."""
    queries = 1 if setting.algorithm == "Reptile" else setting.shots
    return data_of(WAYS, setting.shots, queries, setting.tasks)


def our_step(setting: Setting, device: torch.device, recorded: bool) -> Step:
    """The meta-gradient of all tasks at once, as a graph or operation by operation."""
    learner = learner_of(setting).to(device)
    episode = batch(data_for(setting), learner, device, torch.float32)
    function = chunk_gradient(learner.outer_loss)
    if recorded:
        function = Compiled(function, lambda: [*learner.parameters(), *learner.buffers()], kept=False)
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
    """Ends a fit after some seconds of steady steps, and keeps when each ended; then times the meta-gradient alone.

    Args:
        turn: is called after the first step, which compiles.
    """

    seconds = 0.5 if REHEARSAL else 1.5

    def __init__(self, turn: Callable[[], object] = lambda: None) -> None:
        self.turn = turn
        self.began = 0.0
        self.times: list[float] = []
        self.gradient: dict[str, Any] = {}
        self.found: tuple[Params, Params, Episode] | None = None  # weights, their gradient, and its tasks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) == 1:
            self.turn()
        if len(self.times) > 20 and self.times[-1] - self.times[5] > self.seconds:
            self.gradient = measure(lambda: lambda: pl_module.task_map.meta_gradient(batch, 0.5), pl_module.device)
            grads = pl_module.task_map.meta_gradient(batch, 0.5).grads
            weights = map_params(lambda weight: weight.cpu().clone(), pl_module.meta_parameters())
            self.found = weights, map_params(Tensor.cpu, grads), Episode(*(tensor.cpu() for tensor in batch))
            trainer.should_stop = True


def whole_fit(setting: Setting, device: torch.device, learner: MetaLearner, clock: Clock) -> list[dict[str, Any]]:
    """The meta-gradient alone, and `Trainer.fit` with sampling, the outer step and Lightning.

    Without logging, validation and checkpoints.
    """
    trainer = Trainer(
        max_steps=10**6, accelerator=device.type, devices=1, logger=False, callbacks=[clock],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        log_every_n_steps=0,
    )  # fmt: skip
    trainer.fit(learner, datamodule=data_for(setting))
    steady, first = clock.times[5:], round(clock.times[0] - clock.began, 2)
    fit = {"ms": round(1e3 * (steady[-1] - steady[0]) / (len(steady) - 1), 3), "first_s": first}
    return [clock.gradient | {"first_s": first}, fit]


def error_of(learner: MetaLearner, clock: Clock) -> float:
    """Of the gradient that a fit has found, without the biases before a norm, whose gradient is rounding alone."""
    assert clock.found is not None
    weights, grads, episode = clock.found
    learner = learner.cpu().double()
    exact = Episode(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in episode))
    carry, progress = learner.training_carry(exact), torch.tensor(0.5, dtype=torch.float64)
    function = chunk_gradient(learner.outer_loss)
    expected = meta_gradient(function, map_params(Tensor.double, weights), exact, carry, progress, chunk=1).grads
    convolutions = {f"backbone.{n}.bias" for n, part in learner.backbone.named_modules() if isinstance(part, nn.Conv2d)}
    names = [name for name in expected if name not in convolutions]
    difference = torch.cat([(grads[name] - expected[name]).flatten() for name in names])
    return float(difference.norm() / torch.cat([expected[name].flatten() for name in names]).norm())


def too_long(*_: Any) -> None:
    """What the alarm clock does."""
    raise TimeoutError(f"this took longer than {LIMIT} s")


def measure_fused(rows: Rows, device: torch.device, name: str, turn: str, tf32: bool) -> None:
    """Fused kernels, when it is their turn."""
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    methods = ["fused, TF32"] if tf32 else ["fused", "fused, Trainer.fit"]
    try:
        with open(turn, "w") as lock:
            learner, clock = learner_of(SETTINGS[name], "fused"), Clock(lambda: fcntl.flock(lock, fcntl.LOCK_EX))
            found = whole_fit(SETTINGS[name], device, learner, clock)
        error = error_of(learner, clock)
    except Exception as exception:
        traceback.print_exc()
        rows.add(setting=name, method=methods[0], state=short(exception))
        return
    state = "ok" if error < (0.5 if tf32 else 1e-3) else "WRONG"
    rows.add(setting=name, method=methods[0], **found[0], error=error, state=state)
    if not tf32:
        rows.add(setting=name, method=methods[1], **found[1], state=state)


def main() -> int:
    """Measure until the time is up: what the trainings need first, then what is compared with it."""
    device, rows, end = torch.device(sys.argv[1]), Rows(sys.argv[2]), time.perf_counter() + float(sys.argv[3])
    warnings.simplefilter("ignore")
    if len(sys.argv) > 4:
        measure_fused(rows, device, sys.argv[4], sys.argv[5], "TF32" in sys.argv[6:])
        return rows.exit_status()
    signal.signal(signal.SIGALRM, too_long)

    def in_float32(setting: Setting) -> list[dict[str, Any]]:
        torch.backends.cudnn.allow_tf32 = False
        try:
            return [measure(lambda: our_step(setting, device, True), device)]
        finally:
            torch.backends.cudnn.allow_tf32 = True

    measurements: list[tuple[list[str], bool, Callable[[Setting], list[dict[str, Any]]]]] = [
        (
            ["graph", "graph, Trainer.fit"],
            False,
            lambda setting: whole_fit(setting, device, learner_of(setting), Clock()),
        ),
        (["graph"], True, lambda setting: [measure(lambda: our_step(setting, device, True), device)]),
        (["graph, float32"], False, in_float32),
        (["loop over tasks"], False, lambda setting: [measure(lambda: loop_over_tasks(setting, device), device)]),
        (["uncompiled"], False, lambda setting: [measure(lambda: our_step(setting, device, False), device)]),
    ]
    for methods, large, measured in measurements:
        for name in SETTINGS:
            if large != (name in LARGE):
                continue
            found: list[dict[str, Any]] = [{"state": "no time left"}] * len(methods)
            if time.perf_counter() < end:
                signal.alarm(LIMIT)
                try:
                    found = [{**row, "state": "ok"} for row in measured(SETTINGS[name])]
                except Exception as error:
                    traceback.print_exc()
                    found = [{"state": short(error)}] * len(methods)
                signal.alarm(0)
            for method, row in zip(methods, found, strict=True):
                rows.add(setting=name, method=method, **row)
    return rows.exit_status()


if __name__ == "__main__":
    sys.exit(main())
