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

    def give(self, name: str, values: Tensor, refuse: Callable[[], None]) -> None:
        """Have a check refused unless its values are finite.

        Args:
            name: of the check.
            values: what it checks, one dimension.
            refuse: looks again, and raises.
        """
        self._read(name)
        if _comes_late(values):
            self._pending[name] = _on_its_way(values), refuse
        elif not values.isfinite().all():
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


def _comes_late(values: Tensor) -> bool:
    return values.is_cuda


def _on_its_way(values: Tensor) -> Callable[[], bool]:
    """What says whether they are finite, once they are copied; meanwhile the device goes on."""
    if not values.is_cuda:
        return lambda: bool(values.isfinite().all())
    copy = torch.empty_like(values, device="cpu", pin_memory=True)
    copy.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(values.device))

    def read() -> bool:
        copied.synchronize()
        return bool(copy.isfinite().all())

    return read
