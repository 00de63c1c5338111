"""Ten kinds of run, small enough for hundreds of them: methods, precisions, accumulation, workers and ranks."""

from typing import NamedTuple

STEPS, VALIDATED = 20, 5  # meta-steps of a run, and between two validations, each of which writes last.ckpt

_RUN = [f"--trainer.max_steps={STEPS}", "--trainer.accelerator=cpu"]
_RUN += ["--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1", "--run=run", "--experiment=soak"]
_RUN += ["--data.meta_batch_size=2", "--data.validation_tasks=3", "--data.test_tasks=3"]
_STEPS = ["--model.inner.steps=2", "--model.inner.evaluation_steps=2"]
_STEP = ["--model.inner.steps=1", "--model.inner.evaluation_steps=2"]
_NETWORK = ["--model.backbone=Conv4", "--model.backbone.filters=4", "--model.compile=false"]
_CHARACTERS = ["--data=GlyphEpisodes", "--data.train_classes=12", "--data.validation_classes=4"]
_CHARACTERS += ["--data.test_classes=4", "--data.drawings=6", "--data.ways=3", *_NETWORK]
_CURVES = [
    "--data=SinusoidEpisodes",
    "--model.backbone=MLP",
    "--model.backbone.inputs=1",
    "--model.backbone.hidden=[8]",
]
_CURVES += ["--model.loss=torch.nn.functional.mse_loss", "--checkpoint.monitor=val_loss", "--checkpoint.mode=min"]


class Case(NamedTuple):
    """One kind of run: what ``lightning-meta fit`` is given, and on how many processes and batches it trains."""

    method: str
    settings: list[str]
    ranks: int = 1
    batches: int = 1  # of a meta-step

    def arguments(self, root: str) -> list[str]:
        """Of the command line, for a run whose files go below ``root``."""
        run = [*_RUN, f"--trainer.val_check_interval={self.batches * VALIDATED}", f"--trainer.default_root_dir={root}"]
        return [f"--model={self.method}", *self.settings, *run, f"--trainer.accumulate_grad_batches={self.batches}"]


CASES = {
    "MAML": Case("MAML", [*_CHARACTERS, *_STEP]),
    "MAML, captured graph": Case("MAML", [*_CURVES, *_STEPS, "--model.compile=graph", "--model.task_chunk=2"]),
    "MAML, two batches a meta-step": Case("MAML", [*_CURVES, *_STEPS, "--model.compile=false"], batches=2),
    "MAML, two ranks": Case(
        "MAML",
        [*_CURVES, *_STEPS, "--model.compile=false", "--trainer.devices=2", "--trainer.strategy=ddp"],
        ranks=2,
    ),
    "FOMAML, bf16-mixed": Case("FOMAML", [*_CHARACTERS, *_STEP, "--trainer.precision=bf16-mixed"]),
    "Reptile, 64-true": Case(
        "Reptile",
        [*_CURVES, *_STEPS, "--model.compile=false", "--model.inner.optimizer=Adam", "--trainer.precision=64-true"],
    ),
    "ANIL, two data workers": Case("ANIL", [*_CHARACTERS, *_STEP, "--data.num_workers=2"]),
    "Meta-SGD, cosine schedule": Case(
        "MAML",
        [*_CURVES, *_STEPS, "--model.compile=false", "--model.inner.optimizer=MetaSGD",
         "--model.lr_scheduler=CosineAnnealingLR"],
    ),
    "PrototypicalNetworks": Case("PrototypicalNetworks", _CHARACTERS),
    "LearnedOptimizer": Case(
        "LearnedOptimizer",
        [*_CURVES, *_STEPS, "--model.compile=false", "--model.inner.optimizer=LSTMOptimizer",
         "--model.inner.optimizer.units=4", "--model.optimization_steps=4"],
    ),
}  # fmt: skip
