"""``lightning-meta check -c NAME``: whether the data of a configuration leak, with figures."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer

from lightning_meta.cli.lightning_cli import MetaCLI
from lightning_meta.cli.listing import print_table
from lightning_meta.cli.subcommands import build
from lightning_meta.data import EpisodeDataModule
from lightning_meta.data.leaks import Finding, find_leaks
from lightning_meta.errors import MetaLearningError
from lightning_meta.escaping import printable


class CheckTrainer(Trainer):
    """What jsonargparse reads the subcommand's own options from."""

    def check(
        self,
        model: LightningModule,
        datamodule: EpisodeDataModule,
        tasks: int = 200,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Compare the splits, tasks and ranks of the data with each other; a run's configuration has the last two."""


class CheckCLI(MetaCLI):
    """Builds learner and data of a configuration as a run does, and compares the data with themselves."""

    runs = CheckTrainer
    findings: list[Finding]

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The one that runs."""
        return {"check": {"model", "datamodule"}}

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """One that runs nothing and leaves no folder."""
        return CheckTrainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)

    def _parse_ckpt_path(self) -> None:
        """Data have no checkpoint."""

    def check(self, model: LightningModule, datamodule: EpisodeDataModule, tasks: int, **of_a_run: Any) -> None:
        """Look for leaks in the data.

        Raises:
            MetaLearningError: there are too few tasks.
        """
        if tasks < 1:
            raise MetaLearningError(f"tasks is {tasks}, expected at least 1 of every split")
        self.findings = find_leaks(datamodule, tasks)


def main(args: list[str]) -> int:
    """Print what was compared and found; returns 1 where the data leak, otherwise 0.

    Args:
        args: arguments after ``lightning-meta check``.

    Raises:
        MetaLearningError: the data are missing, or the settings are wrong.
    """
    cli = build(CheckCLI, "check", args)
    if isinstance(cli, int):
        return cli
    settings = cli.config["check"]
    print(f"{printable(settings['experiment'])}: {type(cli.datamodule).__name__}, seed {cli.datamodule.seed}\n")
    titles = "looked for", "compared", "found"
    print_table([titles, *[(finding.what, finding.compared, finding.found) for finding in cli.findings]])
    for finding in cli.findings:
        for example in filter(None, finding.examples):
            print(printable(f"{'' if finding.leaks else 'note: '}{finding.what}: {example}"))
    leaks = [finding.what for finding in cli.findings if finding.leaks]
    print(f"\n{'the data leak: ' + '; '.join(leaks) if leaks else 'no leak found'}")
    return int(bool(leaks))
