"""Makes a checkpoint that comes with the package from a run: its weights, what they are, and how well they do.

    python benchmarks/pretrained/pack.py RUN CHECKPOINT NAME --title "MAML on Omniglot, 5-way 1-shot"

RUN is the folder of a run (``logs/EXPERIMENT/version_K``) with its ``config.yaml`` and ``results.json``, which holds a
test of CHECKPOINT, as ``fit`` ends with one; of several on such tasks, that on the most counts. Writes
``lightning_meta/inference/pretrained/NAME.safetensors``.
"""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_meta import results_file
from lightning_meta.inference import save_learner
from lightning_meta.learner import MetaLearner

PRETRAINED = Path(__file__).parents[2] / "lightning_meta" / "inference" / "pretrained"
MOST_BYTES = 500_000
OF_A_MACHINE = ("root", "download", "cache_dir", "cache_device", "num_workers")


def main() -> None:
    """Read the run, rebuild its learner and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("name")
    parser.add_argument("--title", required=True)
    parser.add_argument("--bfloat16", action="store_true", help="halve the file, where it would be too large")
    given = parser.parse_args()

    config = yaml.safe_load((given.run / "config.yaml").read_text("utf-8"))
    learner = load(config["model"], given.checkpoint)
    about = config["data"]
    tests = [
        entry
        for path in given.run.rglob(results_file.NAME)
        for entry in results_file.read(path)
        if entry.split == "test" and entry.checkpoint == given.checkpoint.name
    ]
    if not tests:
        raise SystemExit(f"{given.run} holds no test of {given.checkpoint.name}: run lightning-meta test first")
    own = next((entry for entry in tests if (entry.command or "").startswith("lightning-meta fit")), tests[0])
    tests = [entry for entry in tests if task_of(entry) == task_of(own)]
    test = max(tests, key=lambda entry: entry.tasks)
    if given.bfloat16:
        learner.bfloat16()
    path = PRETRAINED / f"{given.name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    settings = {name: value for name, value in about["init_args"].items() if name not in OF_A_MACHINE}
    facts = {"data_settings": settings, "max_steps": config["trainer"]["max_steps"], "command": own.command}
    save_learner(learner, path, title=given.title, **facts, **figures(test))
    if path.stat().st_size > MOST_BYTES:
        path.unlink()
        raise SystemExit(f"{path} would take more than {MOST_BYTES:,} bytes: train fewer filters, or give --bfloat16")
    print(f"{path}: {path.stat().st_size:,} bytes")


def task_of(test: results_file.Evaluation) -> tuple[int | None, ...]:
    """What kind of task it was measured on."""
    return test.ways, test.shots, test.queries


def load(model: dict[str, Any], checkpoint: Path) -> MetaLearner:
    """The learner of a run, also of one whose checkpoints do not name their method."""
    module, _, name = model["class_path"].rpartition(".")
    kind = getattr(import_module(module if module.startswith("lightning_meta") else "lightning_meta"), name)
    learner: MetaLearner = kind.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    learner.hparams.update(saved["hyper_parameters"])
    learner.not_plain = set(saved["not_plain"])
    return learner


def figures(test: results_file.Evaluation) -> dict[str, Any]:
    """What the test measured after its last inner step, all queries together and each alone, and how it was trained."""
    kind = "accuracy" if "query_accuracy" in test.metrics else "loss"
    names = {"together": f"query_{kind}", "alone": f"query_nontransductive_{kind}"}
    measured = {
        key: [test.metrics[name].mean[-1], test.metrics[name].half_width[-1]]
        for key, name in names.items()
        if name in test.metrics
    }
    return {
        "results": {"kind": kind, "tasks": test.tasks, "seed": test.seed} | measured,
        "minutes": test.minutes, "device": test.device,
    }  # fmt: skip


if __name__ == "__main__":
    main()
