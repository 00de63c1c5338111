"""Ranks that are asked to stop, some earlier and some later, stop together."""

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_meta.cli import signals


@pytest.mark.parametrize("told", [0, signal.SIGHUP])
def test_a_signal_that_comes_while_the_ranks_agree_is_neither_lost_nor_a_second_one(
    told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call returns after the handler, with what the ranks knew before; the other may have had it first."""

    def all_reduce(number: torch.Tensor, _: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        number.fill_(told)

    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    ranks: Any = SimpleNamespace(world_size=2, strategy=SimpleNamespace(root_device="cpu"))
    with signals.Stop([]) as stop:
        stop.waits = True
        assert stop.agree(ranks) is bool(told)
        assert stop.number == (told or signal.SIGTERM)


def test_a_signal_after_the_last_meta_step_stops_all_ranks_before_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other ranks would begin it, and wait there for the one that has stopped."""
    monkeypatch.setattr("torch.distributed.all_reduce", lambda number, _: number.fill_(signal.SIGHUP))
    ranks: Any = SimpleNamespace(world_size=2, strategy=SimpleNamespace(root_device="cpu"))
    with signals.Stop([]) as stop:
        stop.waits, stop.trainer = True, ranks
        with pytest.raises(signals.Stopped):
            stop.no_more_to_save()
    assert stop.number == signal.SIGHUP


def test_a_signal_that_follows_another_ranks_is_the_same_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.all_reduce", lambda number, _: number.fill_(signal.SIGHUP))
    monkeypatch.setattr(os, "_exit", lambda _: pytest.fail("ended before it was saved"))
    ranks: Any = SimpleNamespace(world_size=2, strategy=SimpleNamespace(root_device="cpu"))
    with signals.Stop([]) as stop:
        stop.waits = True
        assert stop.agree(ranks)
        signal.raise_signal(signal.SIGHUP)
    assert stop.number == signal.SIGHUP
