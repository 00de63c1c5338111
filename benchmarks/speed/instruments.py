"""Times, memory and operator shares of a step."""

import os
import time
from typing import Any, NamedTuple

os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # before torch: its profiler reports every start

import torch
from contenders import Step
from torch.profiler import ProfilerActivity, profile


class Turn(NamedTuple):
    """Seconds of one meta-step: by the clock, and of the processor."""

    wall: float
    cpu: float


class Stopwatch:
    """Started where it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def seconds(self) -> float:
        """By the clock so far."""
        return time.perf_counter() - self._wall

    def turn(self, steps: int) -> Turn:
        """Seconds so far, of each of so many steps."""
        return Turn(self.seconds() / steps, (time.process_time() - self._cpu) / steps)


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_of(step: Step, seconds: float, device: torch.device) -> Turn:
    """A turn of about that long; on a GPU, the clock is the device's."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
    watch, count = Stopwatch(), 0
    if events:
        events[0].record()
    while count == 0 or watch.seconds() < seconds:
        step()
        count += 1
        synchronise(device)
    turn = watch.turn(count)
    if events:
        events[1].record()
        synchronise(device)
        return turn._replace(wall=events[0].elapsed_time(events[1]) / 1e3 / count)
    return turn


def peak_memory(step: Step, device: torch.device) -> float:
    """MiB of tensors that one step holds at most, beside those that it finds."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    kineto: Any = profiler.profiler.kineto_results  # type: ignore[union-attr]
    events = sorted((event for event in kineto.events() if event.name() == "[memory]"), key=lambda e: e.start_ns())
    held = torch.tensor([event.nbytes() for event in events], dtype=torch.float64).cumsum(0)
    return held.max().item() / 2**20


def convolution_share(step: Step) -> float:
    """The part of a step's operator time that convolutions and their gradients take."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as profiler:
        step()
    times = [
        (event.key, event.self_device_time_total or event.self_cpu_time_total) for event in profiler.key_averages()
    ]
    return sum(time for key, time in times if "conv" in key) / sum(time for _, time in times)
