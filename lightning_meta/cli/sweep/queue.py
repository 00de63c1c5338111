"""All runs of a sweep, one after the other or some side by side."""

import statistics
import time
from collections.abc import Sequence

from lightning_meta.cli.sweep.state import Run, State, logged, shown
from lightning_meta.cli.sweep.workers import Interrupted, Worker, Workers, interruptible

POLL = 0.2  # seconds
REPORT = 300.0  # seconds between two reports of where it stands


class Queue:
    """The runs of a sweep in their order.

    Args:
        runs: all of them.
        jobs: how many train side by side.
        nice: how far their priority is lowered.
        again: the command that goes on with the sweep.
    """

    def __init__(self, runs: Sequence[Run], jobs: int, nice: int, again: str) -> None:
        self.runs, self.jobs, self.again = runs, jobs, again
        self.workers = Workers(nice)
        self.statuses: dict[str, int] = {}  # of the runs that ended under this sweep, by their digests

    def work(self) -> int:
        """Run what is not finished; returns the highest exit status, or 128 and the number of the signal."""
        self.report()
        try:
            with interruptible(self.workers):
                self._work()
        except Interrupted as interrupted:
            self.report()
            print(interrupted.go_on(self.again), flush=True)
            return 128 + interrupted.number
        self.report()
        return max(self.statuses.values(), default=0)

    def _work(self) -> None:
        waiting, elsewhere, reported = list(self.runs), set[str](), time.monotonic()
        while waiting or self.workers.running:
            for run in list(waiting):
                if len(self.workers.running) == self.jobs:
                    break
                worker = self.workers.start(run)
                if worker:
                    print(f"started {run.name}, which writes to {worker.folder}", flush=True)
                elif not run.state().finished:
                    if run.digest not in elsewhere:
                        elsewhere.add(run.digest)
                        print(f"{run.name} is trained by another sweep, for which this one waits", flush=True)
                    continue
                waiting.remove(run)
            time.sleep(POLL)
            for worker, status in self.workers.ended():
                self.statuses[worker.run.digest] = status
                said = "finished" if status == 0 else f"FAILED with status {status}, see {worker.folder / 'output.log'}"
                print(f"{worker.run.name}: {said}", flush=True)
                if waiting or self.workers.running:
                    self.report()
            if time.monotonic() - reported > REPORT:
                reported = time.monotonic()
                self.report()

    def report(self) -> None:
        """Print where it stands."""
        print(progress(self.runs, self.workers.running, self.jobs), flush=True)


def progress(runs: Sequence[Run], running: Sequence[Worker] = (), jobs: int = 1) -> str:
    """Where every run stands, and how long the rest takes."""
    workers = {worker.run.digest: worker for worker in running}
    states = [run.state() for run in runs]
    steps, rates = [], []
    for run, state in zip(runs, states, strict=True):
        worker = workers.get(run.digest)
        done = max(state.meta_steps, logged(worker.folder)) if worker else state.meta_steps
        fresh = done - worker.steps if worker else 0
        steps.append(done)
        if worker and fresh > 0:
            rates.append((time.monotonic() - worker.started) / fresh)
        else:
            rates.append(state.seconds / state.meta_steps if state.meta_steps else 0.0)
    finished = sum(state.finished for state in states)
    lines = [f"{finished} of {len(runs)} finished{_left(runs, states, steps, rates, jobs)}"]
    for run, state, done in zip(runs, states, steps, strict=True):
        whole = f" of {run.max_steps:,}" if run.max_steps > 0 else ""
        lines.append(f"  {state.kind:<12} {f'{done:,}{whole}':>18} {run.name}" if run.fits else
                     f"  {state.kind:<12} {run.name}")  # fmt: skip
    return "\n".join(lines)


def _left(runs: Sequence[Run], states: Sequence[State], steps: list[int], rates: list[float], jobs: int) -> str:
    """The time that is left; a run that has not begun is taken for as fast as the others on average."""
    known = [rate for rate in rates if rate]
    rest = [i for i, (run, state) in enumerate(zip(runs, states, strict=True)) if run.fits and not state.finished]
    if not rest or not known or any(runs[i].max_steps < 0 for i in rest):
        return ""
    average = statistics.fmean(known)
    seconds = sum((runs[i].max_steps - steps[i]) * (rates[i] or average) for i in rest) / min(jobs, len(rest))
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f", about {hours} h {minutes} min left" if hours else f", about {minutes} min left"


def dry_run(runs: Sequence[Run]) -> str:
    """The command of every run with its state, as lines that a shell takes."""
    lines = []
    for place, run in enumerate(runs, 1):
        state = run.state()
        steps = f", {state.meta_steps:,} meta-steps" if run.fits and state.meta_steps else ""
        lines.append(f"# {place} of {len(runs)}: {state.kind}{steps}{f', {state.folder}' if state.folder else ''}")
        command = shown(run.command(state.folder or run.free_folder()))
        lines.append(f"# {command}" if state.kind in ("finished", "running") else command)
    return "\n".join(lines)
