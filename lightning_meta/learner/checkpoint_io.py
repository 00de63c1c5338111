"""How Lightning writes and reads a learner's checkpoints: in one step, and with a checksum."""

from pathlib import Path
from typing import Any

from lightning_fabric.utilities.cloud_io import get_filesystem
from pytorch_lightning.plugins import TorchCheckpointIO

from lightning_meta import checkpoint_file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Files that are whole or not there, and are refused where a byte has changed; remote files as in the base."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, see `lightning_meta.checkpoint_file.write`."""
        if storage_options is not None or not is_local(path):
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            checkpoint_file.write(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint, see `lightning_meta.checkpoint_file.read`."""
        if not is_local(path):
            return super().load_checkpoint(path, map_location, weights_only)
        return checkpoint_file.read(path, weights_only is not False, map_location=map_location)


def is_local(path: Any) -> bool:
    """Whether a path is one of this machine's files, not of a remote file system."""
    return "file" in get_filesystem(path).protocol
