"""The command line: one command, `lightning-meta`."""

from lightning_meta.cli.command import main

__all__ = ["main"]
