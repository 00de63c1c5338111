"""Every argument of Lightning's Trainer, by the command line: it works, or is refused in one line."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.profilers import PyTorchProfiler

from lightning_meta.cli import main
from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.checks.trainer import check_profiler
from tests.cli.helpers import refused, small

AVERAGING = "callbacks+=StochasticWeightAveraging --trainer.callbacks.swa_lrs"
SWA = f"{AVERAGING}=0.01 --trainer.limit_train_batches=1"
EPOCHS = "--trainer.limit_train_batches=1 --trainer.max_epochs=2 --trainer.callbacks.swa_epoch_start=1"
CSV_LOGGER = "logger+=CSVLogger --trainer.logger.save_dir"
REFUSED = [
    ("accelerator=gpu", "No supported gpu backend|GPU"),
    ("accelerator=nope", "invalid accelerator name"),
    ("accumulate_grad_batches=-2", "trainer.accumulate_grad_batches is -2, expected at least 1"),
    ("accumulate_grad_batches=0", "trainer.accumulate_grad_batches is 0, expected at least 1"),
    ("barebones=true --trainer.fast_dev_run=1", "barebones=True, "),
    ("callbacks+=BackboneFinetuning", "trainer.callbacks holds BackboneFinetuning, .* requires_grad_"),
    ("callbacks+=BatchSizeFinder", "trainer.callbacks holds BatchSizeFinder, .* data.meta_batch_size"),
    ("callbacks+=LearningRateFinder", "trainer.callbacks holds LearningRateFinder, .* model.optimizer.lr"),
    ("callbacks+=LearningRateMonitor --trainer.logger=false", "has no logger"),
    ("callbacks+=ModelPruning --trainer.callbacks.pruning_fn=l1_unstructured", "holds ModelPruning, .*nn.utils.prune"),
    ("callbacks+=StochasticWeightAveraging", "StochasticWeightAveraging needs --trainer.callbacks.swa_lrs"),
    (f"{AVERAGING}=-1", "`swa_lrs` should a positive float"),
    (f"{AVERAGING}=x", "trainer.callbacks.swa_lrs is x, expected float or list"),
    (f"{AVERAGING}=.nan {EPOCHS}", "swa_lrs of StochasticWeightAveraging .* is nan, expected a finite number"),
    (f"{AVERAGING}=[.1,.2] {EPOCHS}", r"swa_lrs of .* is \[0.1, 0.2\], .* as many as the optimizer has groups \(1\)"),
    (f"{AVERAGING}=.1 {EPOCHS} --trainer.callbacks.annealing_epochs=-1", "annealing_epochs of .* is -1, .*at least 0"),
    (f"{AVERAGING}=.1 {EPOCHS} --trainer.callbacks.device=nope", "device of .* is nope, expected a device of this"),
    (
        f"{AVERAGING}=.1",
        "swa_epoch_start 0.8 is a share of trainer.max_epochs, but that is -1: set trainer.limit_train_batches",
    ),
    (f"{AVERAGING}=.1 --trainer.callbacks.swa_epoch_start=0", "swa_epoch_start should be a >0 integer or a float"),
    (f"{AVERAGING}=.1 --trainer.callbacks.swa_epoch_start=x", "callbacks.swa_epoch_start is x, expected int or float"),
    (f"{AVERAGING}=.1 --trainer.callbacks.swa_epoch_start=1", "from epoch 2 on, but the run ends in epoch 1, so"),
    ("check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch is 0, .*limit_val_batches to 0"),
    ("devices=-1", "`devices` selected with `CPUAccelerator` should be an int > 0"),
    ("devices=0", "not a valid input using cpu"),
    ("fast_dev_run=-1", "not a valid configuration"),
    ("gradient_clip_algorithm=nope", "`gradient_clip_algorithm` nope is invalid"),
    ("gradient_clip_val=-1", "trainer.gradient_clip_val is -1, expected at least 0"),
    ("limit_train_batches=0", "trainer.limit_train_batches is 0, which trains nothing"),
    ("limit_val_batches=-1", "invalid value -1 for limit_val_batches"),
    ("limit_val_batches=0.5", "You requested to check 0.5 of the `val_dataloader`"),
    ("log_every_n_steps=-1", "trainer.log_every_n_steps is -1, expected at least 0"),
    ("max_epochs=0", "the fit ended before its first meta-step"),
    ("max_steps=-1", "trainer.max_steps is -1"),
    ("max_steps=0", "trainer.max_steps is 0"),
    ("max_time=00:00:00:00", "the fit ended before its first meta-step"),
    ("max_time=xyz", "not a valid duration"),
    ("min_steps=30", "trainer.min_steps is 30, but trainer.max_steps is 2"),
    ("overfit_batches=0.5", "trainer.overfit_batches is 0.5, .* a stream"),
    ("overfit_batches=1", "trainer.overfit_batches is 1, .* a stream"),
    ("precision=16-true", "model.optimizer.eps is 1e-08, which torch.float16, .* rounds to 0, .*: set it to 1e-4"),
    ("precision=8", "trainer.precision is 8"),
    ("precision=transformer-engine", "trainer.precision is transformer-engine, .*: set it to 32-true"),
    ("profiler=nope", "'simple', 'advanced', 'pytorch', 'xla'"),
    ("strategy=nope", "invalid strategy name"),
    ("val_check_interval=-1", "invalid value -1 for val_check_interval"),
    ("val_check_interval=0", "trainer.val_check_interval is 0, .*limit_val_batches to 0"),
    ("val_check_interval=0.5", "`val_check_interval` should be an integer"),
]
slow = pytest.mark.slow
WORKS = [
    "barebones=true --trainer.log_every_n_steps=0 --trainer.enable_progress_bar=null",
    pytest.param("detect_anomaly=true", marks=slow),
    "enable_checkpointing=false",
    "enable_checkpointing=false --trainer.logger=false",
    "fast_dev_run=true",
    pytest.param("accumulate_grad_batches=2", marks=slow),
    pytest.param("benchmark=true --trainer.deterministic=warn", marks=slow),
    pytest.param("callbacks+=EMAWeightAveraging", marks=slow),
    pytest.param("callbacks+=EarlyStopping --trainer.callbacks.monitor=val_loss", marks=slow),
    pytest.param("callbacks+=ModelCheckpoint --trainer.callbacks.every_n_train_steps=1", marks=slow),
    pytest.param("callbacks+=ModelCheckpoint --trainer.callbacks.train_time_interval=0:00:01", marks=slow),
    pytest.param("callbacks+=ModelCheckpoint --trainer.callbacks.save_top_k=-1", marks=slow),
    pytest.param("callbacks+=ModelCheckpoint --trainer.callbacks.dirpath=kept", marks=slow),
    pytest.param(f"{SWA} --trainer.callbacks.swa_epoch_start=1 --trainer.max_epochs=2", marks=slow),
    pytest.param("callbacks+=WeightAveraging", marks=slow),
    pytest.param(f"{CSV_LOGGER}=a --trainer.{CSV_LOGGER}=b", marks=slow),
    pytest.param("logger=tests.cli.picture_logger.PictureLogger", marks=slow),
    pytest.param("callbacks+=RichProgressBar --trainer.enable_progress_bar=null", marks=slow),
    pytest.param("check_val_every_n_epoch=1", marks=slow),
    pytest.param("enable_autolog_hparams=false --trainer.enable_model_summary=true", marks=slow),
    pytest.param("gradient_clip_val=0.5 --trainer.gradient_clip_algorithm=value", marks=slow),
    pytest.param("inference_mode=false --trainer.use_distributed_sampler=false", marks=slow),
    pytest.param("limit_test_batches=0", marks=slow),
    pytest.param("limit_train_batches=1", marks=slow),
    pytest.param("limit_val_batches=0 --trainer.limit_predict_batches=1", marks=slow),
    pytest.param("max_time=01:00:00:00 --trainer.min_epochs=1", marks=slow),
    pytest.param("num_sanity_val_steps=1", marks=slow),
    pytest.param("profiler=pytorch", marks=slow),
    pytest.param("profiler=simple --trainer.sync_batchnorm=true", marks=slow),
    pytest.param("reload_dataloaders_every_n_epochs=1 --trainer.max_epochs=2", marks=slow),
]
ELSEWHERE = {  # tested by name in other files, or made of classes of a person's own
    "default_root_dir", "num_nodes", "plugins", "model_registry",
}  # fmt: skip


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    """Lightning switches these for the process, and no run switches them back."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    benchmark, anomaly = torch.backends.cudnn.benchmark, torch.is_anomaly_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = benchmark
    torch.autograd.set_detect_anomaly(anomaly)


def test_no_argument_is_forgotten() -> None:
    rows = [argument for argument, _ in REFUSED]
    rows += [row if isinstance(row, str) else str(row.values[0]) for row in WORKS]
    given = {
        part.removeprefix("--trainer.").partition("=")[0].partition(".")[0] for row in rows for part in row.split()
    }
    given = {name.removesuffix("+") for name in given}
    assert {*inspect.signature(Trainer).parameters} - given == ELSEWHERE


@pytest.mark.parametrize(("argument", "said"), REFUSED)
def test_a_flag_is_refused(
    argument: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = refused(["fit", *small(tmp_path), *f"--trainer.{argument}".split()], capsys)
    assert re.search(said, printed), printed
    assert not [*tmp_path.iterdir()]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's tips about the flags
@pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize("argument", WORKS)
def test_a_flag_works(argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [one for one in small(tmp_path) if not one.startswith("--trainer.log_every_n_steps")]
    if "anomaly" not in argument:  # the others have nothing to do with graphs, whose tracing takes most of the time
        arguments.append("--model.compile=false")
    assert main(["fit", *arguments, *f"--trainer.{argument}".split()]) == 0
    checkpoints, results = list(tmp_path.rglob("*.ckpt")), list(tmp_path.rglob("results.json"))
    assert bool(checkpoints) == (
        "barebones" not in argument and "checkpointing" not in argument and "dev" not in argument
    )
    assert bool(results) == ("dev" not in argument and "test_batches=0" not in argument)
    for entry in (entry for path in results for entry in json.loads(path.read_text())):
        assert entry["meta_steps"] > 0


@pytest.mark.slow
def test_runs_without_a_logger_have_folders_of_their_own(tmp_path: Path) -> None:
    for _ in range(2):
        assert main(["fit", *small(tmp_path, steps=1), "--trainer.logger=false"]) == 0
    for version in (0, 1):
        run = tmp_path / "experiment" / f"version_{version}"
        assert (run / "config.yaml").exists()
        assert (run / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("command", "argument", "said"),
    [
        ("fit", "--data.seed=7", "data.seed is 7, .* set seed_everything instead"),
        ("fit", "--data.init_args.seed=7", "data.seed is 7, .* set seed_everything instead"),
        ("fit", "-c={data: {init_args: {seed: 7}}}", "data.seed is 7, .* set seed_everything instead"),
        ("fit", "--experiment=../../x", "expected the name of a folder below trainer.default_root_dir"),
        ("fit", "--experiment=/x", "expected the name of a folder below trainer.default_root_dir"),
        ("fit", "--experiment=", "expected the name of a folder below trainer.default_root_dir"),
        ("test", "--trainer.limit_test_batches=0", "trainer.limit_test_batches is 0, so there is nothing to test"),
        ("validate", "--trainer.limit_val_batches=0", "limit_val_batches is 0, so there is nothing to validate"),
    ],
)
def test_a_setting_is_not_dropped_silently(
    command: str, argument: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(said, refused([command, *small(tmp_path), argument], capsys))


def test_marks_that_cannot_be_copied_are_refused_in_python() -> None:
    with pytest.raises(MetaLearningError, match="trainer.profiler is PyTorchProfiler, .* record_module_names to false"):
        check_profiler(PyTorchProfiler())
