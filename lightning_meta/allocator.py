"""How the C library hands memory out on a CPU."""

import contextlib
import ctypes

# From malloc.h of the GNU C library.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let the process keep what it frees, for the next tensor of that size.

    The GNU C library gives every large block back to the system and asks for it again, page by page, which costs a
    vectorised meta-step more than its arithmetic. The process then stays as large as it once was. Elsewhere, nothing.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
