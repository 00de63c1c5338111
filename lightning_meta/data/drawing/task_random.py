"""Counter-based random numbers: each one is a hash of the seed, the stream, the task and a counter.

What a task draws depends on (seed, split, task number) alone, so a stream of tasks is the same for any number of
workers, ranks and restarts. All draws are vectorised over tasks.
"""

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # as a signed 64-bit integer; arithmetic wraps around
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """Scramble 64-bit integers one by one: the finaliser of SplitMix64.

    Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014; constants by Stafford.
    """
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


class TaskRandom:
    """Draws for a batch of tasks. Successive draws are independent; the order of the calls is part of the contract.

    Args:
        seed: seed of the run.
        stream: name of the stream, such as the split.
        numbers: place of each task in the stream, shape (tasks,).
    """

    def __init__(self, seed: int, stream: str, numbers: Tensor) -> None:
        origin = mix(torch.tensor(seed, dtype=torch.int64) + _GOLDEN) + zlib.crc32(stream.encode())
        self._keys = mix(mix(origin * _GOLDEN) + numbers.to(torch.int64) * _GOLDEN)
        self._drawn = 0

    def bits(self, *shape: int) -> Tensor:
        """Uniform non-negative 32-bit integers (as int64), shape (tasks, *shape)."""
        count = torch.Size(shape).numel()
        counters = torch.arange(self._drawn + 1, self._drawn + count + 1, device=self._keys.device)
        self._drawn += count
        return _shift(mix(self._keys[:, None] + counters * _GOLDEN), 32).view(len(self._keys), *shape)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform float32 in [low, high), shape (tasks, *shape)."""
        return (self.bits(*shape).double() * (2.0**-32 * (high - low)) + low).float()

    def normal(self, *shape: int) -> Tensor:
        """Standard normal float32, shape (tasks, *shape)."""
        return torch.special.ndtri((self.bits(*shape).double() + 0.5) * 2.0**-32).float()

    def integers(self, high: int | Tensor, *shape: int) -> Tensor:
        """Uniform integers in [0, high), shape (tasks, *shape); ``high`` below 2^31, broadcast against it."""
        return (self.bits(*shape) * high) >> 32

    def order(self, size: int, *shape: int) -> Tensor:
        """A random permutation of 0..size-1 in the last axis, shape (tasks, *shape, size)."""
        return self.bits(*shape, size).argsort(-1)

    def choose(self, population: int | Tensor, size: int, shape: Sequence[int] = ()) -> Tensor:
        """Distinct integers from [0, population) in random order, shape (tasks, *shape, size).

        Floyd's algorithm (Bentley and Floyd, CACM 1987) makes the set, a random permutation its order.

        Args:
            population: one number, or one for each of (tasks, *shape); at least ``size``.
            size: how many to choose.
            shape: further axes; entries are chosen independently.
        """
        bits = self.bits(*shape, size)
        chosen = torch.empty_like(bits)
        for place in range(size):
            highest = population - size + place
            candidate = (bits[..., place] * (highest + 1)) >> 32
            taken = (chosen[..., :place] == candidate[..., None]).any(-1)
            chosen[..., place] = torch.where(taken, highest, candidate)
        return chosen.gather(-1, self.order(size, *shape))


def inner_order(random: TaskRandom, rows: int, steps: int, size: int | None, visits: int = 1) -> Tensor:
    """Support rows of each inner step: shuffle, walk through all rows, shuffle again; no row twice within a walk.

    Args:
        random: random numbers of the tasks.
        rows: rows of the support set.
        steps: inner steps of a meta-step.
        size: rows of a step; None for the whole support set in its own order.
        visits: consecutive meta-steps on these tasks.

    Returns:
        Shape (tasks, visits * steps, size).
    """
    steps *= visits
    if size is None:
        return torch.arange(rows).expand(len(random.bits(1)), steps, rows)
    walks = random.order(rows, -(-steps * size // rows))
    return walks.flatten(1)[:, : steps * size].reshape(len(walks), steps, size)
