"""Results that are kept as long as there is room."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """The values that were used last, up to so many bytes; the newest is kept in any case.

    Args:
        max_bytes: of all values.
        size: bytes of a value.
    """

    def __init__(self, max_bytes: int, size: Callable[[Value], int]) -> None:
        self.max_bytes, self.size = max_bytes, size
        self.bytes = 0
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of ``key``, made where there is none."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            if key not in self._values:  # another thread may have been faster
                self._values[key] = value
                self.bytes += self.size(value)
            while self.bytes > self.max_bytes and len(self._values) > 1:
                self.bytes -= self.size(self._values.popitem(last=False)[1])
            return value

    def __len__(self) -> int:
        return len(self._values)
