"""What the process asks of the system: main memory, and whether there is a GPU."""

import contextlib
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # names of settings, from malloc.h of the GNU C library
_PROCESS = Path("/proc/self")


def keep_freed_memory() -> None:
    """Let the process keep what it frees, for the next tensor of that size.

    The GNU C library gives every large block back to the system and asks for it again, page by page, which costs a
    vectorised meta-step more than its arithmetic. The process then stays as large as it once was. With another C
    library, nothing happens.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def growth(run: Callable[[], object]) -> int:
    """Bytes that the process grows by at most while ``run`` runs; 0 where the system does not tell, as Linux does."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)  # else what was kept would hide what is needed
        (_PROCESS / "clear_refs").write_text("5")  # sets the peak back to what is in use now
    before = _status("VmRSS")
    run()
    return max(_status("VmHWM") - before, 0)


def remember_missing_gpu() -> None:
    """Where there is no NVIDIA GPU, say so to PyTorch, whose Adam else looks for NVIDIA's library at every step."""
    if not torch.cuda.device_count():
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def _status(name: str) -> int:
    """Bytes, from the kernel's table of this process."""
    with contextlib.suppress(OSError, StopIteration):
        lines = (_PROCESS / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024
    return 0
