"""TensorBoard's table of hyperparameters and its page of custom scalars, which loggers cannot fill by themselves."""

from collections.abc import Iterator, Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from lightning_meta.callbacks.learner import learner_of

PROTOCOLS = {"": "transductive", "_nontransductive": "non-transductive"}


class Board(Callback):
    """Fills two pages of TensorBoard after the first evaluation of a run.

    The table of hyperparameters gets the learner's settings beside its headline figures (``val_accuracy``,
    ``test_accuracy`` and the same by the non-transductive protocol; losses of a regression). The page of custom scalars
    gets charts in which training, validation and test are curves of the same figure.
    """

    def __init__(self) -> None:
        self._written = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count as the trainer does, as the learner lets loggers do, before a callback logs its first value."""
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        if self._written or not trainer.is_global_zero:
            return
        self._written = True
        learner = learner_of(pl_module)
        kind = "accuracy" if "query_accuracy" in learner.scores.intervals else "loss"
        last = learner.scores.intervals[f"query_{kind}"].steps[-1]
        settings = dict(_flat("", pl_module.hparams))
        headlines = {f"{stage}_{kind}{protocol}": 0 for stage in ("val", "test") for protocol in PROTOCOLS}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for summary in hparams(settings, headlines):  # of the figures it takes the names alone
                    logger.experiment.file_writer.add_summary(summary)
                logger.experiment.add_custom_scalars(_charts(kind, last))

    on_test_end = on_validation_end


def _charts(kind: str, last: int) -> dict[str, dict[str, list[Any]]]:
    """Charts by page and title: a regular expression for the curves of each."""
    pages: dict[str, dict[str, list[Any]]] = {}
    for part, protocol in (("query", ""), ("query", "_nontransductive"), ("support", "")):
        title = f"query {kind}, {PROTOCOLS[protocol]}" if part == "query" else f"support {kind}"
        steps = {0: "before adaptation", 1: "after 1 inner step", last: f"after {last} inner steps"}
        pages[title] = {
            name: ["Multiline", [rf"(train|val|test)/{part}_{kind}/step_{step}{protocol}$"]]
            for step, name in steps.items()
            if step <= last
        }
    return pages


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Settings by their names on the command line, as TensorBoard can hold them."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            if key not in ("_instantiator", "class_path"):
                yield from _flat(name if key == "init_args" else f"{name}.{key}" if name else str(key), below)
        if "class_path" in value:
            yield name, str(value["class_path"])
    else:
        yield name, value if isinstance(value, bool | int | float | str) else str(value)
