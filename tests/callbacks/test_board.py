"""TensorBoard's table of hyperparameters and its charts, and the step at which loggers put what was measured."""

import csv
import json
import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from lightning_meta.cli import main

TINY = [
    "--model=MAML", "--model.backbone=lightning_meta.MLP", "--model.backbone.inputs=784", "--model.compile=false",
    "--data=GlyphEpisodes", "--data.ways=2", "--data.test_tasks=4", "--data.validation_tasks=4",
    "--data.meta_batch_size=2", "--data.train_classes=20", "--data.validation_classes=4", "--data.test_classes=4",
    "--trainer.accelerator=cpu", "--trainer.val_check_interval=2", "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false", "--checkpoint.monitor=val_accuracy_nontransductive",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Checkpoint directory")  # that of the run, which goes on
def test_a_run_in_two_parts_is_logged_as_one(tmp_path: Path) -> None:
    fit = ["fit", *TINY, f"--trainer.default_root_dir={tmp_path}"]
    assert main([*fit, "--trainer.max_steps=2"]) == 0
    run = tmp_path / "experiment" / "version_0"
    assert main([*fit, "--trainer.max_steps=4", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"]) == 0
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) + 1 for row in rows if row["val_loss"]] == [2, 4]
    assert [int(row["step"]) + 1 for row in rows if row["train/outer_loss"]] == [1, 2, 3, 4]
    tested = json.loads((run / "checkpoints" / "results.json").read_text())[-1]
    assert [int(row["step"]) for row in rows if row["test_loss"]] == [tested["meta_steps"]]

    board = EventAccumulator(str(run)).Reload()
    scalars = set(board.Tags()["scalars"])
    assert "hp_metric" not in scalars
    table = board.summary_metadata
    metrics = plugin_data_pb2.HParamsPluginData.FromString(
        table["_hparams_/experiment"].plugin_data.content
    ).experiment.metric_infos
    headlines = {"val_accuracy", "val_accuracy_nontransductive", "test_accuracy", "test_accuracy_nontransductive"}
    assert {info.name.tag for info in metrics} == headlines <= scalars
    settings = plugin_data_pb2.HParamsPluginData.FromString(
        table["_hparams_/session_start_info"].plugin_data.content
    ).session_start_info.hparams
    assert settings["inner.optimizer.lr"].number_value > 0
    assert settings["backbone"].string_value.endswith("MLP")

    layout = layout_pb2.Layout.FromString(board.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = {(page.title, chart.title): chart.multiline.tag[0] for page in layout.category for chart in page.chart}
    for step, title in enumerate(["before adaptation", "after 1 inner step"]):
        pattern = charts["query accuracy, transductive", title]
        shown = {tag for tag in scalars if re.match(pattern, tag)}
        assert shown == {f"{stage}/query_accuracy/step_{step}" for stage in ("train", "val", "test")}
