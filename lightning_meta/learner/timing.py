"""Timing of what a learner may do in several ways."""

import time
from collections.abc import Callable
from typing import Any

import torch


def seconds_of(run: Callable[[], Any]) -> float:
    """Seconds that ``run`` takes, the better of two times."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        run()
        if torch.cuda.is_initialized():  # which runs on while the host goes ahead
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)
