"""Short fits by the command line, one after another in the same processes: ``python ranks.py FOLDER``.

Two ranks on gloo, each a process of its own. `test_ranks.py` runs this, and the same fits on one rank, and compares.
"""

import sys
from pathlib import Path

from lightning_meta.cli import main

RUN = ["--trainer.accelerator=cpu", "--trainer.precision=64-true", "--trainer.enable_progress_bar=false"]
RUN += ["--trainer.log_every_n_steps=1", "--data.meta_batch_size=4", "--data.test_tasks=5"]
GLYPHS = ["--model.backbone=Conv4", "--model.backbone.filters=4", "--model.inner.evaluation_steps=2"]
GLYPHS += ["--data=GlyphEpisodes", "--data.train_classes=12", "--data.validation_classes=4", "--data.ways=3"]
GLYPHS += ["--data.test_classes=4", "--data.validation_tasks=5", "--trainer.max_steps=3"]
GLYPHS += ["--trainer.val_check_interval=3"]
POLICY = ["--model.backbone=GaussianPolicy", "--model.region.conjugate_gradient_steps=3", "--data=NavigationEpisodes"]
POLICY += ["--data.trajectories=3", "--data.horizon=5", "--trainer.max_steps=2", "--trainer.limit_val_batches=0"]
POLICY += ["--checkpoint.monitor=null"]
EAGER = ["--model.compile=false"]  # one compiled method tells as much, since ranks meet outside of what is compiled
FITS = {
    "MAML": [*GLYPHS, "--model.outer_reduction=sum", "--model.task_chunk=2"],
    "FOMAML": [*GLYPHS, *EAGER],
    "Reptile": [*GLYPHS, *EAGER, "--model.inner.optimizer=Adam", "--model.inner.steps=2", "--model.inner.batch_size=2"],
    "TRPOMAML": [*POLICY, *EAGER],
}


def fit(algorithm: str, folder: Path, *arguments: str) -> int:
    """The status of a fit whose files go below ``folder / algorithm``."""
    root = f"--trainer.default_root_dir={folder / algorithm}"
    return main(["fit", f"--model={algorithm}", *FITS[algorithm], *RUN, root, *arguments])


if __name__ == "__main__":
    for name in FITS:
        if fit(name, Path(sys.argv[1]), "--trainer.devices=2", "--trainer.strategy=ddp"):
            raise SystemExit(f"{name} failed")
