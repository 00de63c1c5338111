"""The search of a sweep: Optuna proposes settings, and trials that fall behind at their validations end early."""

import hashlib
import math
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lightning_meta.cli.sweep.plan import Sweep
from lightning_meta.cli.sweep.queue import POLL
from lightning_meta.cli.sweep.space import Parameter, argument
from lightning_meta.cli.sweep.state import Run, shown
from lightning_meta.cli.sweep.workers import Interrupted, Worker, Workers, interruptible
from lightning_meta.errors import MetaLearningError
from lightning_meta.report.runs import read_run

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState
except ImportError as error:
    raise MetaLearningError(
        f"a search needs Optuna, an extra of this package: pip install 'lightning-meta[search]' ({error})"
    ) from error

STORAGE = "search.log"  # Optuna's journal, beside the runs


class Searcher:
    """A search, which goes on with the trials that earlier calls have made.

    Args:
        sweep: with a search.
        first: one of its runs, for what all of them have in common.
        jobs: trials side by side.
        nice: how far their priority is lowered.
        again: the command that goes on.
    """

    def __init__(self, sweep: Sweep, first: Run, jobs: int, nice: int, again: str) -> None:
        assert sweep.search
        self.sweep, self.search, self.jobs, self.again = sweep, sweep.search, jobs, again
        self.workers = Workers(nice)
        self.trials: dict[str, Any] = {}  # of the runs at work, by their digests
        self.status = 0
        self.first = first
        optuna.logging.set_verbosity(optuna.logging.WARNING)

    def open(self) -> "optuna.Study":
        """The study of this search; another space, metric or setting of the runs is another study."""
        search, folder = self.search, self.first.experiment
        folder.mkdir(parents=True, exist_ok=True)
        space = sorted((name, repr(parameter)) for name, parameter in search.parameters.items())
        text = repr((self.first.digest, space, search.metric, search.direction))
        pruner = optuna.pruners.MedianPruner() if search.pruner == "median" else optuna.pruners.NopPruner()
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / STORAGE))),
            study_name=hashlib.sha256(text.encode()).hexdigest()[:12],
            pruner=pruner,
            direction=optuna.study.StudyDirection[search.direction.upper()],
            load_if_exists=True,
        )
        # A second start is not to propose once more what the first one did.
        seed = self.first.settings["seed_everything"] + len(study.get_trials(deepcopy=False))
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=self.jobs > 1)
        return study

    def lock(self, study: "optuna.Study") -> FileLock:
        """Held by the process that is at a search."""
        return FileLock(self.first.experiment / f".{study.study_name}.lock", timeout=0)

    def work(self) -> int:
        """Run trials until there are enough; returns the highest exit status of those of this call."""
        study = self.open()
        try:
            with self.lock(study):
                return self._search(study)
        except Timeout:
            raise MetaLearningError(
                f"another process is at this search in {self.first.experiment}: wait for its end, or stop it and start "
                "one with --jobs for trials side by side"
            ) from None

    def _search(self, study: "optuna.Study") -> int:
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):  # of a process that was killed
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
        try:
            with interruptible(self.workers):
                self._run(study)
        except Interrupted as interrupted:
            for trial in self.trials.values():
                study.tell(trial, state=TrialState.FAIL)
                study.enqueue_trial(trial.params)
            print(f"{self.best(study)}\n{interrupted.go_on(self.again)}")
            return 128 + interrupted.number
        print(self.best(study))
        return self.status

    def _run(self, study: "optuna.Study") -> None:
        while True:
            while len(self.workers.running) < self.jobs and self._counted(study) < self.search.trials:
                self._start(study)
            if not self.workers.running:
                return
            time.sleep(POLL)
            for worker, status in self.workers.ended():
                self._end(study, worker, status)
            for worker in list(self.workers.running):
                self._report(study, worker)

    def _counted(self, study: "optuna.Study") -> int:
        """Trials that are over or at work; those that an interruption cut off come again."""
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        diverged = [t for t in study.get_trials(deepcopy=False, states=(TrialState.FAIL,)) if "status" in t.user_attrs]
        return len(study.get_trials(deepcopy=False, states=states)) + len(diverged)

    def _start(self, study: "optuna.Study") -> None:
        """Start the next trial; one whose run exists already is not trained twice."""
        trial = study.ask({name: _distribution(one) for name, one in self.search.parameters.items()})
        run = self._of(trial.params)
        print(f"trial {trial.number}: {_words(trial.params)}", flush=True)
        worker = self.workers.start(run)
        if worker:
            self.trials[run.digest] = trial
        else:
            self._tell(study, trial, run.state().folder, 0)

    def _of(self, params: dict[str, Any]) -> Run:
        own = [argument(name, value) for name, value in params.items()]
        return Run(self.sweep.arguments(own), own)

    def _end(self, study: "optuna.Study", worker: Worker, status: int) -> None:
        self.status = max(self.status, status)
        self._tell(study, self.trials.pop(worker.run.digest), worker.folder, status)

    def _tell(self, study: "optuna.Study", trial: "optuna.Trial", folder: Path | None, status: int) -> None:
        """Tell Optuna how a trial ended."""
        validations = _validations(folder) if folder else {}
        if not status and self.search.metric not in validations:
            study.tell(trial, state=TrialState.FAIL)
            names = ", ".join(sorted(validations)) or "nothing"
            raise MetaLearningError(
                f"{self.sweep.path}: search.metric is {self.search.metric}, but the validations of {folder} logged "
                f"{names}"
            )
        values = validations.get(self.search.metric, {})
        known = [value for value in values.values() if math.isfinite(value)]
        if status or not known:
            what = f"FAILED with status {status}, see {folder}" if status else f"diverged, see {folder}"
            trial.set_user_attr("status", status)
            study.tell(trial, state=TrialState.FAIL)
            print(f"trial {trial.number}: {what}", flush=True)
            return
        value = max(known) if self.search.direction == "maximize" else min(known)
        study.tell(trial, value)
        print(f"trial {trial.number}: {self.search.metric} {value:.4f} (best of its validations)", flush=True)

    def _report(self, study: "optuna.Study", worker: Worker) -> None:
        """Tell Optuna of new validations, and end a trial that falls behind."""
        trial = self.trials[worker.run.digest]
        seen = study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for step, value in sorted(_validations(worker.folder).get(self.search.metric, {}).items()):
            if step in seen or not math.isfinite(value):
                continue
            trial.report(value, step)
            if trial.should_prune():
                self.workers.stop([worker])
                del self.trials[worker.run.digest]
                study.tell(trial, state=TrialState.PRUNED)
                print(
                    f"trial {trial.number}: ended after {step:,} meta-steps, {self.search.metric} {value:.4f}",
                    flush=True,
                )
                return

    def best(self, study: "optuna.Study") -> str:
        """How many trials there are, and the best setting as a command."""
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
        said = f"{self._counted(study)} of {self.search.trials} trials, {len(pruned)} of them ended early"
        if not complete:
            return said
        own = [argument(name, value) for name, value in study.best_params.items()]
        command = shown(self.sweep.arguments(own))
        return f"{said}\nbest: {self.search.metric} {study.best_value:.4f} with {_words(study.best_params)}\n{command}"

    def dry_run(self) -> int:
        """Print what is searched and where it stands."""
        lines = [f"# {name} {parameter}" for name, parameter in self.search.parameters.items()]
        lines.append(f"# {self.search.direction} {self.search.metric}, {self.search.trials} trials of")
        lines.append(f"# {shown(self.sweep.arguments([]))}")
        if (self.first.experiment / STORAGE).exists():
            *said, command = self.best(self.open()).split("\n")
            lines += [f"# {line}" for line in said] + [command if said else f"# {command}"]
        print("\n".join(lines))
        return 0


def _validations(folder: Path) -> dict[str, dict[int, float]]:
    """What the validations of a run logged so far: values by meta-steps."""
    try:
        return read_run(folder)[0].validation
    except MetaLearningError:  # it has not written its settings yet
        return {}


def _words(params: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )


def _distribution(parameter: Parameter) -> Any:
    """A parameter in Optuna's terms."""
    if parameter.choices:
        return optuna.distributions.CategoricalDistribution(parameter.choices)
    kind = optuna.distributions.IntDistribution if parameter.whole else optuna.distributions.FloatDistribution
    return kind(parameter.low, parameter.high, log=parameter.log)
