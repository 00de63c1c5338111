"""The fused meta-gradient of two checkouts of this repository, in alternating turns: whether a change is faster.

    taskset -c 0 python benchmarks/speed/versions.py OTHER [--cases 0 1 2 3 4] [--turns 25]

OTHER is a clone at the commit to compare with, such as ``git worktree add OTHER COMMIT`` makes. For each of the quick
cases of `throughput.py`, a process for each checkout compiles kernels, which takes minutes for five inner steps, and
the two take turns on one thread: median and least milliseconds of a meta-gradient, and the median of the ratio of the
times in the same turn, ours to the other's.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]


def answer(case_number: int) -> None:
    """Print the seconds of one meta-gradient for every line that comes in."""
    import torch
    from cases import QUICK, data_of, learner_of

    from lightning_meta.learner.task_map import TaskMap
    from lightning_meta.mapping import channels_last, meta_gradient
    from lightning_meta.process import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    case = QUICK[case_number]
    learner, data = learner_of(case), data_of(case, None)
    data.connect(learner.training_batches(), learner.evaluation_batches())
    episode, progress = data.draw("train", torch.arange(case.tasks)), torch.zeros(())
    learner.train()
    tasks = TaskMap(learner, 1, "fused")
    tasks.prepare()

    def step() -> None:
        weights, carry = channels_last((learner.meta_parameters(), learner.training_carry(episode)))
        gradient = tasks._gradient(learner.variant_at(0.0), fused=True)
        meta_gradient(
            gradient, weights, episode, carry, progress, chunk=1, reduction=learner.outer_reduction,
            serial=learner.serial, carry_per_task=learner.carry_per_task,
        )  # fmt: skip

    step()
    step()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


def started(checkout: Path, case_number: int) -> subprocess.Popen[str]:
    """A process that answers with the code of a checkout, once it has compiled."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--answer", str(case_number)]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n", f"{checkout} does not answer"
    return process


def seconds(process: subprocess.Popen[str]) -> float:
    """How long its next meta-gradient takes."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--cases", type=int, nargs="+", default=range(5))
    parser.add_argument("--turns", type=int, default=25)
    parser.add_argument("--answer", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer is not None:
        answer(arguments.answer)
        return
    if arguments.other is None:
        parser.error("OTHER is missing: a clone of this repository")
    for number in arguments.cases:
        processes = [started(checkout, number) for checkout in (arguments.other.resolve(), HERE)]
        turns = [[seconds(process) for process in processes] for _ in range(arguments.turns)]
        for process in processes:
            process.kill()
        times = [f"{1e3 * statistics.median(t):.1f} ms (least {1e3 * min(t):.1f})" for t in zip(*turns, strict=True)]
        ratio = statistics.median(ours / other for other, ours in turns)
        print(f"case {number}: other {times[0]}, ours {times[1]}, ratio {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
