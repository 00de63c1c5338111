"""Results of an evaluation, and the results of others that a file keeps."""

import json
import math
from pathlib import Path

import pytest
import torch
from pytorch_lightning.demos.boring_classes import BoringModel

from lightning_meta import task_values
from lightning_meta.callbacks.learner import learner_of
from lightning_meta.callbacks.results import _table
from lightning_meta.cli import main
from lightning_meta.cli.lightning_cli import _recorded
from lightning_meta.errors import MetaLearningError
from lightning_meta.results_file import Metric, read
from tests.cli.helpers import small
from tests.test_results_file import evaluation


@pytest.mark.slow
def test_a_test_of_other_shots_stands_beside_the_first_and_a_repeated_one_replaces_it(tmp_path: Path) -> None:
    arguments = [*small(tmp_path), "--model.compile=false"]
    assert main(["fit", *arguments, "--trainer.max_steps=3"]) == 0  # the best is of the only validation, after two
    (checkpoint,) = tmp_path.rglob("best-*.ckpt")
    others = ["--data.shots=3", "--data.shots=4", "--data.shots=3", "--experiment=another", "--data.test_tasks=2"]
    for more in (*others, "--seed_everything=5"):
        assert main(["test", *arguments, more, f"--ckpt_path={checkpoint}"]) == 0
    entries = json.loads((checkpoint.parent / "results.json").read_text())
    assert [(entry["experiment"], entry["shots"], entry["tasks"], entry["seed"]) for entry in entries] == [
        ("experiment", 2, 5, 0), ("experiment", 4, 5, 0), ("experiment", 3, 5, 0), ("another", 2, 5, 0),
        ("experiment", 2, 2, 0), ("experiment", 2, 5, 5),
    ]  # fmt: skip
    assert {entry["meta_steps"] for entry in entries} == {2}
    assert len({entry["minutes"] for entry in entries}) == 1  # of the training, whoever tests


@pytest.mark.slow
def test_a_damaged_last_checkpoint_does_not_cost_the_test_of_another(tmp_path: Path) -> None:
    arguments = [*small(tmp_path), "--model.compile=false"]
    assert main(["fit", *arguments]) == 0
    (best,) = tmp_path.rglob("best-*.ckpt")
    best.with_name("last.ckpt").write_bytes(b"<html>")
    best.with_name("results.json").unlink()
    with pytest.warns(UserWarning, match="last.ckpt cannot be read as a checkpoint: .*the minutes are those of"):
        assert main(["test", *arguments, f"--ckpt_path={best}"]) == 0
    assert len(json.loads(best.with_name("results.json").read_text())) == 1


def test_a_damaged_results_file_does_not_cost_a_test(tmp_path: Path) -> None:
    arguments = [*small(tmp_path), "--model.compile=false"]
    assert main(["fit", *arguments]) == 0
    (path,) = tmp_path.rglob("results.json")
    (entry,), (tasks,) = read(path), task_values.read(path.with_name("tasks.json"))
    assert tasks.evaluation == list(entry.identity)
    assert tasks.metrics.keys() == {"query_accuracy", "query_nontransductive_accuracy"}
    for name, values in tasks.metrics.items():
        assert len(values) == 5
        assert torch.tensor(values).mean(0).tolist() == pytest.approx(entry.metrics[name].mean, abs=1e-6)
    path.write_text("[{")
    (checkpoint,) = tmp_path.rglob("best-*.ckpt")
    with pytest.warns(UserWarning, match="is now results.json.damaged"):
        assert main(["test", *arguments, f"--ckpt_path={checkpoint}"]) == 0
    assert len(json.loads(path.read_text())) == 1


def test_callbacks_need_a_meta_learner() -> None:
    with pytest.raises(MetaLearningError, match="the model is a BoringModel, but the callbacks"):
        learner_of(BoringModel())


def test_the_recorded_command_names_no_folder_of_the_machine() -> None:
    assert _recorded(["fit", "--data.root", "/my data", "--data.cache_dir=/c d", "--seed_everything", "1"]) == (
        "lightning-meta fit --data.root DIR --data.cache_dir=DIR --seed_everything 1"
    )


def test_the_table_has_wilsons_interval_where_the_normal_one_is_too_narrow() -> None:
    def printed(mean: float, half_width: float, diverged: int = 0) -> str:
        metric = Metric(60, [0.2, mean], [0.01, half_width], [0, diverged], [0, 1])
        names = ("support", "query", "query_nontransductive")
        metrics = {f"{name}_{kind}": metric for name in names for kind in ("accuracy", "loss")}
        return _table(evaluation()._replace(metrics=metrics, tasks=60))

    near = printed(0.98, 0.0179)
    assert near.count("98.00 ± 1.79 [95.21, 99.18]") == 3
    assert "In brackets Wilson's 95% interval" in near
    assert "[" not in printed(0.5, 0.05) + printed(math.nan, math.nan, 3)
    assert "nan ± nan (3 diverged)" in printed(math.nan, math.nan, 3)
