"""The command line: one command, `lightning-meta`. `main` runs it from tests and notebooks as well."""

from lightning_meta.cli.dispatch import main

__all__ = ["main"]
