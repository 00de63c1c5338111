"""The code on the pages, for tests that run it."""

import re
import types
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    """All blocks of code of this language on a page, a path from the root of the repository."""
    found = re.findall(rf"```{language}\n(.*?)```", ROOT.joinpath(page).read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"{page} has no block of {language}"
    return found


def block(page: str, language: str, part: str) -> str:
    """The one block of this language on a page that contains ``part``."""
    (found,) = [text for text in blocks(page, language) if part in text]
    return found


def run_block(page: str, part: str, name: str = "page") -> types.ModuleType:
    """The module that the one Python block with ``part`` makes, which is not run as a script."""
    module = types.ModuleType(name)
    exec(compile(block(page, "python", part), f"{page}: {part}", "exec"), module.__dict__)
    return module
