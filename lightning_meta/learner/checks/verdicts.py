"""Checks of values on a GPU, which are read a step late so that the host does not wait for the device."""

from collections.abc import Callable

import torch
from torch import Tensor


class Verdicts:
    """What checks have found; a verdict on a GPU is read when the same check comes again, by which time it has arrived.

    By then the weights in memory may be spoilt, so `settle` comes before anything that scores or keeps them.
    """

    def __init__(self) -> None:
        self._pending: dict[str, tuple[Callable[[], bool], Callable[[], None]]] = {}  # by the name of the check

    def __reduce__(self) -> tuple[type["Verdicts"], tuple[()]]:
        return Verdicts, ()  # copies of a learner wait for nothing

    def give(self, name: str, sound: Tensor, refuse: Callable[[], None]) -> None:
        """Have a check refused unless its values are sound.

        Args:
            name: of the check.
            sound: a boolean scalar.
            refuse: looks again, and raises.
        """
        self._read(name)
        if _comes_late(sound):
            self._pending[name] = _on_its_way(sound), refuse
        elif not sound:
            refuse()

    def settle(self) -> None:
        """Read all that is known of the steps so far."""
        for name in list(self._pending):
            self._read(name)

    def _read(self, name: str) -> None:
        if name in self._pending:
            sound, refuse = self._pending[name]
            if not sound():
                refuse()  # it stays pending, so that a later attempt to save is refused as well
            del self._pending[name]


def _comes_late(sound: Tensor) -> bool:
    return sound.is_cuda


def _on_its_way(sound: Tensor) -> Callable[[], bool]:
    """What gives the value, once it is copied; meanwhile the device goes on."""
    if not sound.is_cuda:
        return lambda: bool(sound)
    copy = torch.empty_like(sound, device="cpu", pin_memory=True)
    copy.copy_(sound, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(sound.device))

    def read() -> bool:
        copied.synchronize()
        return bool(copy)

    return read
