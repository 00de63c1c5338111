"""Sine waves: what is drawn is y = A sin(x - p) within the ranges of the papers."""

import math

import pytest
import torch
from torch import Tensor

from lightning_meta.data.drawing.data_module import Split
from lightning_meta.data.sinusoid import SinusoidEpisodes
from lightning_meta.episode import InnerBatches

TASKS = torch.arange(2000)


def fit(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Amplitudes, phases in [0, 2 pi) and largest errors of the waves A sin(x - p) through (tasks, points, 1)."""
    x, y = x.double(), y.double()
    basis = torch.cat([x.sin(), x.cos()], -1)
    weights = torch.linalg.lstsq(basis, y).solution  # (tasks, 2, 1): A cos p, -A sin p
    phase = torch.atan2(-weights[:, 1, 0], weights[:, 0, 0]) % (2 * math.pi)
    return weights.norm(dim=(1, 2)), phase, (basis @ weights - y).abs().amax((1, 2))


@pytest.mark.parametrize("max_phase", [math.pi, 2 * math.pi])
def test_support_and_query_lie_on_one_wave_within_the_ranges(max_phase: float) -> None:
    episode = SinusoidEpisodes(max_phase=max_phase).draw("train", TASKS)
    x, y = torch.cat([episode.support_x, episode.query_x], 1), torch.cat([episode.support_y, episode.query_y], 1)
    amplitude, phase, error = fit(x, y)
    assert error.max() < 1e-5
    assert amplitude.min() >= 0.0999 and amplitude.max() < 5.0001
    assert phase.max() < max_phase + 1e-3
    assert x.min() >= -5 and x.max() < 5
    for values, middle, width in ((amplitude, 2.55, 4.9), (phase, max_phase / 2, max_phase), (x.double(), 0.0, 10.0)):
        spread = width / math.sqrt(12)  # of a uniform distribution
        assert abs(values.mean().item() - middle) < 5 * spread / math.sqrt(len(TASKS))
        assert abs(values.std().item() - spread) < 0.05 * spread


def test_shapes_and_the_inner_order() -> None:
    data = SinusoidEpisodes(shots=10, queries=4, train_shots=50, train_queries=7)
    data.connect(InnerBatches(steps=3, size=5), InnerBatches())
    train, test = data.draw("train", TASKS[:6]), data.draw("test", TASKS[:6])
    assert [tuple(tensor.shape) for tensor in train] == [(6, 50, 1)] * 2 + [(6, 7, 1)] * 2 + [(6, 3, 5), (6,), (6, 0)]
    assert [tuple(tensor.shape) for tensor in test] == [(6, 10, 1)] * 2 + [(6, 4, 1)] * 2 + [(6, 0, 10), (6,), (6, 0)]
    assert len(data.draw("train", TASKS[:0]).support_x) == 0


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_wave_is_a_function_of_seed_split_and_number(split: Split) -> None:
    numbers = torch.tensor([7, 3, 10**9])
    episode = SinusoidEpisodes().draw(split, numbers)
    alone = SinusoidEpisodes().draw(split, numbers[2:])
    assert all(torch.equal(tensor[2:], other) for tensor, other in zip(episode, alone, strict=True))


def test_waves_of_other_splits_and_seeds_are_others() -> None:
    streams: list[tuple[int, Split]] = [(0, "train"), (0, "validation"), (0, "test"), (1, "train")]
    waves = [SinusoidEpisodes(seed=seed).draw(split, TASKS[:200]) for seed, split in streams]
    amplitudes = torch.cat([fit(wave.support_x, wave.support_y)[0] for wave in waves])
    assert amplitudes.sort().values.diff().min() > 1e-7  # no wave is drawn twice
