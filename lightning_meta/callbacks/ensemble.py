"""Several checkpoints of one run as one learner."""

import copy
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils import _pytree as pytree

from lightning_meta import checkpoint_file
from lightning_meta.callbacks.learner import learner_of
from lightning_meta.errors import MetaLearningError


class Ensemble(Callback):
    """Tests the mean of the outputs (logits) of a run's best checkpoints, each adapted to the task by itself.

    Antoniou, Edwards and Storkey, "How to train your MAML", arXiv 1810.09502, take the five with the best validation
    accuracy.

    Args:
        size: how many checkpoints; the run must have kept as many (``checkpoint.save_top_k``).
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the weights of all members.

        Raises:
            MetaLearningError: the run did not keep enough checkpoints.
        """
        learner, own = learner_of(pl_module), copy.deepcopy(pl_module.state_dict())
        for state in [_load(path) for path in self._paths(trainer)]:
            pl_module.load_state_dict(state["state_dict"])
            member = learner.meta_parameters(), learner.carry.tree()
            learner.ensemble.append(pytree.tree_map(torch.clone, member))
        pl_module.load_state_dict(own)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Return the learner to its own weights."""
        learner_of(pl_module).ensemble.clear()

    def _paths(self, trainer: Trainer) -> list[Path]:
        """The best checkpoints, in the folder of the one that is tested."""
        folder = Path(str(trainer.ckpt_path)).parent
        last = folder / "last.ckpt"  # the only one that knows how all validations of the run ended
        callback = trainer.checkpoint_callback
        found: dict[str, Any] = {}
        if trainer.ckpt_path and last.exists() and isinstance(callback, ModelCheckpoint):
            states = _load(last)["callbacks"]
            found = states.get(callback.state_key, {}).get("best_k_models", {})
        paths = sorted(found, key=lambda path: float(found[path]), reverse=callback.mode == "max")  # type: ignore[union-attr]
        if len(paths) < self.size:
            raise MetaLearningError(
                f"ensemble is {self.size}, but the run in {folder} kept {len(paths)} checkpoints by their validation: "
                f"fit with --ensemble {self.size}, on a split with validation classes, and with as many validations"
            )
        return [folder / Path(path).name for path in paths[: self.size]]


def _load(path: Path) -> dict[str, Any]:
    try:
        return checkpoint_file.read(path)
    except MetaLearningError as error:
        raise MetaLearningError(f"the ensemble: {error}; or test with a smaller ensemble, or fit again") from error
