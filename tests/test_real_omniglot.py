"""A short run on real Omniglot learns."""

import json
from pathlib import Path

import pytest

from lightning_meta.cli import main

CONFIG = Path(__file__).parents[1] / "configs" / "omniglot" / "finn_5w1s_maml.yaml"


@pytest.mark.slow
def test_sixty_meta_steps_of_maml_learn(omniglot_root: Path, tmp_path: Path) -> None:
    """Unseen characters, 5-way: chance is 20%, an untrained network's features give less than half."""
    arguments = [f"--data.root={omniglot_root}", f"--data.cache_dir={tmp_path}", "--data.test_tasks=100"]
    arguments += ["--trainer.max_steps=60", f"--trainer.default_root_dir={tmp_path}", "--trainer.accelerator=cpu"]
    arguments += ["--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=0"]
    assert main(["fit", f"--config={CONFIG}", *arguments]) == 0
    (results,) = tmp_path.rglob("results.json")
    accuracy = json.loads(results.read_text())[0]["metrics"]["query_accuracy"]["mean"]
    assert accuracy[3] > 0.6
    assert accuracy[3] > accuracy[0] + 0.3
