"""The parser of the subcommands that are not Lightning's."""

import argparse
from typing import NoReturn

from lightning_meta.errors import MetaLearningError


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong without its usage."""

    def error(self, message: str) -> NoReturn:
        """End in the one error that is meant for people."""
        raise MetaLearningError(f"{message} (`{self.prog} --help` shows all options)")
