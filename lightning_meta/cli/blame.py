"""Which setting an exception comes from, where a person can mend it on the command line."""

import errno
import re
import traceback
from pathlib import Path
from urllib.error import URLError

from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_meta.errors import MetaLearningError

MISTAKES = (MetaLearningError, MisconfigurationException)

PLACES = {  # by what the path of a file holds, or the name of a function; the innermost frame counts
    "torch/optim/lr_scheduler": "model.lr_scheduler",
    "torch/optim/": "model.optimizer",
    "callbacks/model_checkpoint": "checkpoint",
    "pytorch_lightning/callbacks/": "trainer.callbacks",
    "pytorch_lightning/loggers/": "trainer.logger",
    "pytorch_lightning/profilers/": "trainer.profiler",
    "pytorch_lightning/strategies/": "trainer.strategy",
    "pytorch_lightning/plugins/": "trainer.plugins or trainer.precision",
    "configure_optimizers": "model.optimizer or model.lr_scheduler",
    "_validate_condition_metric": "trainer.callbacks",
}
OWN = "lightning_meta/"
MONITOR = re.compile(r"`(\w+)\(monitor='(.*)'\)` could not find the monitored key .* metrics: \[(.*?)\]", re.DOTALL)
MEMORY = "not enough memory", "can't allocate memory", "out of memory", "Storage size calculation overflowed"

DISK = errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE


def blame(error: Exception) -> MetaLearningError | None:
    """What a person reads instead of a traceback; None where it is a fault of the program or of a person's own code.

    Args:
        error: whatever a run ended in.
    """
    if mistake := find_mistake(error):
        return MetaLearningError(MONITOR.sub(_no_such_metric, str(mistake)))
    if isinstance(error, BrokenPipeError):  # whoever read the output has left
        return None
    if failure := error if isinstance(error, OSError) else find_disk_error(error):
        return MetaLearningError(str(failure))
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in MEMORY)
    ):
        return MetaLearningError(
            f"there is not enough memory ({str(error).splitlines()[0] or 'Python has none left'}): take a smaller "
            "data.meta_batch_size, model.task_chunk or backbone, or fewer data.shots and data.queries"
        )
    if isinstance(error, OverflowError):
        return MetaLearningError(f"a number among the settings is too large ({error}): take a smaller one")
    if setting := _setting(error):
        return MetaLearningError(f"{setting}: {error}")
    return None


def find_mistake(error: BaseException | None) -> BaseException | None:
    """What a person can mend, among the error and what lies behind it; jsonargparse wraps those of constructors."""
    while error is not None and not isinstance(error, (*MISTAKES, URLError)):
        error = error.__cause__ or error.__context__
    if isinstance(error, URLError):  # of torchvision's own setting `weights`
        return MetaLearningError(
            f"the weights that model.backbone names cannot be downloaded ({error.reason}): leave that setting out and "
            "give them as a file, with --model.backbone Pretrained, its `network` and its own `weights`"
        )
    return error


def find_disk_error(error: BaseException | None) -> OSError | None:
    """The failure of a disk, among the error and what lies behind it: TensorBoard's logger hides that in its own."""
    while error is not None and not (isinstance(error, OSError) and error.errno in DISK):
        error = error.__cause__ or error.__context__
    return error


def origin(error: BaseException) -> str:
    """The line of a person's own file, or of this checkout, that an error comes from."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _no_such_metric(match: re.Match[str]) -> str:
    """Lightning's message of a quantity that nothing logs, in terms of the setting."""
    setting = "checkpoint.monitor" if match[1] == "ModelCheckpoint" else f"the monitor of {match[1]}"
    logged = ", ".join(name for name in match[3].replace("'", "").split(", ") if name.startswith("val_"))
    return f"{setting} is {match[2]}, which nothing logs: a validation logs {logged or 'nothing yet'}"


def _setting(error: Exception) -> str:
    """The setting whose code an error was raised in: the innermost place that is known, unless ours comes first."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename).as_posix()
        for place, setting in PLACES.items():
            if place in path or place == frame.name:
                return setting
        if "site-packages" not in path:
            return ""
    return ""
