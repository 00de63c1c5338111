"""Where in a person's own code something went wrong."""

import traceback
from pathlib import Path

import torch

_LIBRARIES = Path(torch.__file__).parent, Path(__file__).parents[1]


def author_line(error: BaseException) -> str:
    """The innermost line of a traceback outside torch and this package, as `` (file.py, line 3)``; else nothing."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.exists() and not any(library in path.parents for library in _LIBRARIES):
            return f" ({path.name}, line {frame.lineno})"
    return ""
