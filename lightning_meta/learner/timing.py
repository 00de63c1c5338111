"""Timing of what a learner may do in several ways."""

import time
from collections.abc import Callable
from typing import Any


def seconds_of(run: Callable[[], Any]) -> float:
    """Seconds that ``run`` takes, the better of two times."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
