"""What Lightning says on every run that is not about the run: offers, deprecations of its own, and wrong hints."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning_meta.escaping import printable

WARNINGS = (
    ".*does not have many workers",  # one vectorised draw makes a meta-batch, faster than workers hand it over
    ".*Previous log files in this directory",  # the TensorBoard logger and the saved configuration share the folder
    ".*LeafSpec",  # Lightning 2.6 on torch 2.15
    ".*across ranks is zero",  # a split without validation classes has no loader
    "The dirpath has changed",  # every command has a run folder of its own
    ".*your dataloader is not resumable",  # the data module goes on where the checkpoint was
    "You are trying to `self.log",  # without a logger by trainer.barebones
    "Couldn.t infer the batch indices",  # predictions carry the numbers of their tasks
    "When using `Trainer.accumulate_grad_batches",  # which the learner's own check of every step is made for
    "LightningCLI's args parameter",  # the command line is called from Python in tests and notebooks
)

LOGGED = (
    "Tip: For seamless",  # offers of packages
    "available: False, using: 0",
    "GPU available: False, used: False",
    "was configured so validation will run",  # repeats the setting
    "`weights_only` was not set",
    "Loaded model weights from the checkpoint",  # repeats the line before
    "is missing a c-shim implementation",  # the operations that it names are as fast
)

LOGGERS = (
    "pytorch_lightning.utilities.rank_zero",
    "pytorch_lightning.trainer.connectors.checkpoint_connector",
    "torch._inductor.ir",
)


def silence() -> None:
    """Leave those lines out, in this process; everything else is still said."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_worth_saying)  # a second time adds nothing


@contextmanager
def silent_threads() -> Iterator[None]:
    """Leave out the traceback of TensorBoard's thread: what it failed at is raised again where it is used next."""
    plain = threading.excepthook

    def said(failed: threading.ExceptHookArgs) -> None:
        if not type(failed.thread).__module__.startswith("tensorboard."):
            plain(failed)

    threading.excepthook = said
    try:
        yield
    finally:
        threading.excepthook = plain


@contextmanager
def printable_warnings() -> Iterator[None]:
    """Show warnings, which may name files of others, without what would move a terminal's cursor."""
    plain = warnings.formatwarning

    def formatted(*args: Any, **more: Any) -> str:
        return "\n".join(map(printable, plain(*args, **more).split("\n")))

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = plain


def _worth_saying(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    record.msg, record.args = "\n".join(map(printable, message.split("\n"))), ()  # it may name files of others
    return not any(text in message for text in LOGGED)
