"""Where in a person's own code something went wrong."""

import inspect
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

_LIBRARIES = Path(torch.__file__).parent, Path(__file__).parents[1], Path(random.__file__)


def author_line(error: BaseException) -> str:
    """The innermost line of a traceback outside torch and this package, as `` (file.py, line 3)``; else nothing."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_authors(frame.filename):
            return _shown(frame.filename, frame.lineno)
    return ""


def defined_at(function: Callable[..., Any]) -> str:
    """Where a person defines a function, as `` (file.py, line 3)``; nothing for those of torch and this package."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return _shown(code.co_filename, code.co_firstlineno) if code and _is_authors(code.co_filename) else ""


def line_of_change(run: Callable[[], Any], state: Callable[[], Any]) -> str:
    """The innermost of a person's own lines that changes ``state`` first while ``run`` runs; else nothing."""
    before, found = state(), ""

    def enter(frame: FrameType, event: str, arg: Any) -> Any:
        if not _is_authors(frame.f_code.co_filename):
            return None
        line = frame.f_lineno

        def follow(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal found, line
            if not found and state() != before:
                found = _shown(frame.f_code.co_filename, line)
            line = frame.f_lineno
            return None if found else follow

        return None if found else follow

    others = sys.gettrace()
    sys.settrace(enter)
    try:
        run()
    finally:
        sys.settrace(others)
    return found


def _is_authors(filename: str) -> bool:
    path = Path(filename)
    return path.exists() and not any(library == path or library in path.parents for library in _LIBRARIES)


def _shown(filename: str, line: int | None) -> str:
    return f" ({Path(filename).name}, line {line})"
