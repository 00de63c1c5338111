"""The stages of the GPU job: machine, correctness, rates, trainings side by side, tables; run by ``run.sh``.

    python benchmarks/gpu/job.py WORK OUTPUT [machine] [correctness] [rates] [trainings]

Without names, all stages run. WORK holds the images and takes the runs; OUTPUT takes three files, again after every
stage: ``table.md``, ``log.txt`` and ``results.tar.gz``, which `collect.py` brings into the repository. One clock of
``SECONDS_IN_ALL`` (540) bounds all stages. One that fails never stops the next, but makes the exit status 1.
"""

import fcntl
import os
import subprocess
import sys
import tarfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from settings import FUSED, REHEARSAL
from tables import RESULTS, Row, correctness_table, rates_table, read_rows, runs_table

HERE = Path(__file__).parent
JAX = {"jax": (), "jax_tf32": ("TF32",)} if find_spec("jax") else {}
DEVICE = "cpu" if REHEARSAL else "cuda"
GRACE = 8  # seconds between asking a process to end and ending it
SLACK = 4 if REHEARSAL else 1  # a machine that rehearses is busy with others
START = 25  # seconds of a training before its first meta-step: imports, images, tracing, recording
BESIDE = 1.5  # how much longer a meta-step takes beside two other trainings; 1.2 to 1.5 on an H100
TRAINING = 0.85  # of the time after the start, the part that is not validation
# After a training: its test (5,000 tasks took 32 s on an H100, two tests side by side), its pictures (9 to 12 s) and
# the end of the process (3 s).
AFTER = 75
RATE = "graph, Trainer.fit"  # by which the length of a training is reckoned
COSINE = ("--model.lr_scheduler", "torch.optim.lr_scheduler.CosineAnnealingLR")


class Training(NamedTuple):
    """A whole run from a configuration, as long as the time allows.

    Its schedule has to end within the time, so the length follows from the measured rate.
    """

    config: str
    setting: str  # whose rate it has
    length: int  # meta-steps, at most
    test_tasks: int
    arguments: tuple[str, ...] = ()
    validates: bool = True


TRAININGS = [
    Training("finn_5w1s_maml", "MAML 5w1s", 16_000, 5000, COSINE),
    Training("finn_5w5s_maml", "MAML 5w5s", 16_000, 1000, COSINE),
    Training("openai_o15t", "Reptile o15", 100_000, 1000, validates=False),
]
SMALL = ["--data.meta_batch_size=2", "--model.backbone.filters=8", "--model.inner.evaluation_steps=2"]
SMALL += ["--data.validation_tasks=2", "--trainer.log_every_n_steps=5"]
DRAWN = ["--data", "GlyphEpisodes", "--data.train_classes=40", "--data.validation_classes=20", "--data.test_classes=20"]
if REHEARSAL:
    TRAININGS = [TRAININGS[0]._replace(length=20, test_tasks=4)]


def length_that_fits(training: Training, step_ms: float, seconds: float) -> int:
    """Meta-steps for which ``seconds`` suffice, beside the other trainings, in whole hundreds.

    Args:
        training: what is trained.
        step_ms: milliseconds of a meta-step in a fit that has the device to itself.
        seconds: from the start of the process to the end of the training.
    """
    steps = 1e3 * TRAINING * (seconds - START) / (BESIDE * step_ms)
    return min(training.length, max(int(steps) // 100 * 100, 100))


class Job:
    """The stages and their clock.

    Args:
        work: folder of the images, and of the measurements and runs.
        output: folder that comes back.
        seconds: for all of it.
    """

    def __init__(self, work: Path, output: Path, seconds: float) -> None:
        self.work, self.output = work, output
        self.end = time.monotonic() + seconds
        self.began = time.monotonic()
        self.failed = False
        self.compiling: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            **os.environ, "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg", "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "JAX_COMPILATION_CACHE_DIR": str(work / "jax"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }  # fmt: skip
        for folder in (output, work / "measured", work / "logs"):
            folder.mkdir(parents=True, exist_ok=True)

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def say(self, text: str) -> None:
        """Print a line, with the time since the start."""
        line = f"[{time.monotonic() - self.began:.0f} s] {text}"
        print(line, flush=True)
        with (self.work / "logs" / "job.txt").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def start(self, name: str, *command: object) -> subprocess.Popen[bytes]:
        """A Python process whose output goes to a log."""
        arguments = [sys.executable, *map(str, command)]
        with (self.work / "logs" / f"{name}.txt").open("wb") as log:
            return subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, env=self.environment)

    def finish(self, name: str, process: subprocess.Popen[bytes], seconds: float) -> None:
        """Wait for a process and say how it ended; one that takes longer is ended."""
        try:
            status = process.wait(max(min(SLACK * seconds, self.left()), 1))
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            status = None
        self.failed |= status != 0
        self.say(f"{name}: {'done' if status == 0 else 'out of time' if status is None else f'exit status {status}'}")

    def measured(self, name: str) -> Path:
        """File of the measurements of this name."""
        return self.work / "measured" / f"{name}.json"

    def machine(self) -> None:
        """What it is."""
        self.finish("machine", self.start("machine", HERE / "machine.py", DEVICE, self.measured("machine")), 60)

    def compile_ahead(self) -> None:
        """Start what compiles for a minute or two, and then waits for its turn, or fills a cache on disk."""
        self.turn = (self.work / "turn").open("w")
        fcntl.flock(self.turn, fcntl.LOCK_EX)
        for name in FUSED:
            for more in [(), ("TF32",)][: 1 if REHEARSAL else 2]:
                place = "_".join(["fused", *name.split(), *more])
                command = (HERE / "rates.py", DEVICE, self.measured(place), 0, name, self.turn.name, *more)
                self.compiling[place] = self.start(place, *command)
        for place, more in JAX.items():
            compiling = f"{place}_compiling"
            command = (HERE / "rates_jax.py", self.measured(compiling), 100 * SLACK, *more)
            self.compiling[compiling] = self.start(compiling, *command)

    def correctness(self) -> None:
        """Gradients against the CPU's; beside them all else compiles."""
        self.compile_ahead()
        checks = self.start("correctness", HERE / "correctness.py", DEVICE, self.measured("correctness"), 80 * SLACK)
        self.finish("correctness", checks, 95)

    def rates(self) -> None:
        """Each with the device to itself."""
        if not self.compiling:
            self.compile_ahead()
        for place in JAX:
            self.finish(f"{place}_compiling", self.compiling.pop(f"{place}_compiling"), 40)
        self.finish("rates", self.start("rates", HERE / "rates.py", DEVICE, self.measured("rates"), 55 * SLACK), 80)
        self.turn.close()
        for place, process in self.compiling.items():
            self.finish(place, process, 60)
        for place, more in JAX.items():
            command = (HERE / "rates_jax.py", self.measured(place), 20 * SLACK, *more)
            self.finish(place, self.start(place, *command), 40)
        if not JAX:
            self.say("JAX is not installed here, so its rates are left out")

    def all_rates(self) -> list[Row]:
        """What was measured on this machine."""
        files = [path for path in sorted(self.work.glob("measured/*.json")) if "compiling" not in path.name]
        rows = [row for path in files if path.name != "machine.json" for row in read_rows(path)]
        return [row for row in rows if "method" in row]

    def trainings(self) -> None:
        """Side by side; each ends by itself, is tested, and keeps its best weights."""
        seconds = max(self.left() - AFTER - 12, 20)
        limit = time.strftime("00:%H:%M:%S", time.gmtime(seconds - 12))  # the clock of a fit starts after the imports
        rates = read_rows(RESULTS / "rates.csv") + self.all_rates()  # those of this machine come last
        step_ms = {row["setting"]: float(row["ms"]) for row in rates if row["method"] == RATE and "ms" in row}
        processes = {}
        for training in TRAININGS:
            length = training.length
            if not REHEARSAL:
                length = length_that_fits(training, step_ms[training.setting], seconds)
            command = ["-m", "lightning_meta", "fit", "-c", f"configs/omniglot/{training.config}.yaml"]
            command += ["--experiment", f"gpu/{training.config}"]
            command += ["--data.root", str(self.work)] if (self.work / "omniglot-py").is_dir() else DRAWN
            command += ["--trainer.default_root_dir", str(self.work / "runs"), "--trainer.accelerator", DEVICE]
            command += ["--trainer.enable_progress_bar", "false", "--trainer.max_time", limit]
            command += ["--trainer.max_steps", str(length), "--data.test_tasks", str(training.test_tasks)]
            command += ["--trainer.val_check_interval", str(length // 4)] if training.validates else []
            command += [*training.arguments, *(SMALL if REHEARSAL else [])]
            processes[training.config] = self.start(training.config, *command)
            self.say(f"{training.config}: {length:,} meta-steps in {seconds:.0f} s")
        for name, process in processes.items():
            self.finish(name, process, self.left() - 10)

    def report(self) -> None:
        """Write what is known so far into the folder that comes back."""
        tables = [
            correctness_table(read_rows(self.measured("correctness"))),
            rates_table(self.all_rates()),
            runs_table(self.work / "runs"),
        ]
        (self.output / "table.md").write_text("\n\n".join(filter(None, tables)) + "\n", encoding="utf-8")
        logs = sorted((self.work / "logs").iterdir())
        parts = [f"== {path.stem}\n{path.read_text(encoding='utf-8', errors='replace')[-8000:]}" for path in logs]
        (self.output / "log.txt").write_text("\n".join(parts), encoding="utf-8")
        with tarfile.open(self.output / "results.tar.gz", "w:gz") as archive:
            for path in sorted([*self.work.glob("measured/*.json"), *self.work.glob("runs/**/*")]):
                if path.is_file() and path.name != "last.ckpt" and not path.name.startswith("events."):
                    archive.add(path, path.relative_to(self.work))


def main() -> int:
    """Run the stages."""
    job = Job(Path(sys.argv[1]), Path(sys.argv[2]), float(os.environ.get("SECONDS_IN_ALL", "540")))
    stages = [job.machine, job.correctness, job.rates, job.trainings]
    for stage in stages:
        if stage.__name__ in (sys.argv[3:] or [each.__name__ for each in stages]):
            stage()
            job.report()
    print((job.output / "table.md").read_text(encoding="utf-8"))
    return int(job.failed)


if __name__ == "__main__":
    sys.exit(main())
