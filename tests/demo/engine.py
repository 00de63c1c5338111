"""What tests of the page's engine share: node, which runs it outside of a browser, and checkpoints."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lightning_meta.learner import MetaLearner

DRIVER = Path(__file__).with_name("drive_engine.mjs")
ENGINE = Path(__file__).parents[2] / "lightning_meta" / "demo" / "page" / "engine"


def run(engine: Path = ENGINE, **job: Any) -> Any:
    """What the engine makes of a job; skips without node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node, which runs the page's engine outside of a browser, is not installed")
    asked = json.dumps({"engine": f"{engine.as_uri()}/", **job})
    done = subprocess.run([node, str(DRIVER)], input=asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def save(
    learner: MetaLearner, path: Path, settings: dict[str, Any], dtype: torch.dtype | None = None, **description: Any
) -> Path:
    """A checkpoint in the package's form, of a backbone with these settings, its numbers as they are or of a type."""
    backbone = {"class_path": f"lightning_meta.backbones.{type(learner.backbone).__name__}", "init_args": settings}
    settings = {"backbone": backbone} | {name: value for name, value in learner.hparams.items() if name[0] != "_"}
    method = f"lightning_meta.algorithms.{type(learner).__name__}"
    known = {"method": method, "hyper_parameters": settings, "preprocessing": None} | description
    tensors = {name: tensor.to(dtype or tensor.dtype).contiguous() for name, tensor in learner.state_dict().items()}
    save_file(tensors, path, metadata={"lightning_meta": json.dumps(known)})
    return path
