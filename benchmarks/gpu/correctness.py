"""Compares meta-gradients on the device with those of a CPU in float64, one setting after another.

    python benchmarks/gpu/correctness.py DEVICE OUTPUT.json SECONDS

The error is the norm of the difference over the norm of the CPU's gradient. Recorded gradients are taken four times,
since the first traces and records and the others replay; ``between_runs`` is the largest distance of two of them.
"""

import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
from batches import batch, data_of
from settings import REHEARSAL, Rows, short
from torch import Tensor, nn

from lightning_meta.algorithms import FOMAML, MAML, Reptile
from lightning_meta.backbones import Conv4
from lightning_meta.inner import SGD, Adam, InnerLoop
from lightning_meta.learner import MetaLearner
from lightning_meta.mapping import Compiled, chunk_gradient, meta_gradient
from lightning_meta.params import Params

TASKS, FILTERS = (3, 4) if REHEARSAL else (6, 16)
CHUNKS = {"vectorised": None, "chunked": TASKS * 2 // 3, "looped": 1}  # the chunks leave a remainder
BOUNDS = {"float64": 1e-9, "float32": 1e-4, "float32 TF32": 1e-1, "16-mixed": 0.3, "bf16-mixed": 0.6}
AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class Check(NamedTuple):
    """One gradient that is compared."""

    algorithm: str
    precision: str
    tasks: str = "vectorised"
    recorded: bool = False
    downsample: str = "stride"


def checks() -> Iterator[Check]:
    """All of them, those that matter most first, since the clock may stop the rest."""
    for algorithm in ("MAML", "Reptile", "FOMAML"):
        for precision in ("float64", "float32"):
            yield Check(algorithm, precision, recorded=True)
    for precision in AUTOCAST:
        yield Check("MAML", precision, recorded=True)
    yield Check("MAML", "float64", "chunked", recorded=True)
    yield Check("MAML", "float64", "looped", recorded=True)
    yield Check("MAML", "float64", recorded=True, downsample="max_pool")
    for algorithm in ("MAML", "Reptile", "FOMAML"):
        for precision in ("float64", "float32", "float32 TF32"):
            yield from (Check(algorithm, precision, tasks) for tasks in CHUNKS)
        yield from (Check(algorithm, precision) for precision in AUTOCAST)
    for algorithm in ("MAML", "FOMAML"):
        yield from (Check(algorithm, precision, downsample="max_pool") for precision in ("float64", "float32"))


def learner_of(check: Check) -> MetaLearner:
    """The algorithm on a small network, the same whenever it is made."""
    torch.manual_seed(1)
    backbone = Conv4(5, filters=FILTERS, downsample=check.downsample)  # type: ignore[arg-type]
    if check.algorithm == "Reptile":
        return Reptile(backbone, InnerLoop(Adam(1e-3, beta1=0.0), 3, 10), lr_scheduler=None)
    return {"MAML": MAML, "FOMAML": FOMAML}[check.algorithm](backbone, InnerLoop(SGD(0.1), 2))


def gradients(check: Check, device: torch.device) -> list[Params]:
    """The meta-gradient of a fixed batch, several times where it is recorded."""
    dtype = torch.float64 if check.precision == "float64" else torch.float32
    learner = learner_of(check).to(device, dtype)
    episode = batch(data_of(5, 3, 2, TASKS), learner, device, dtype)
    function = chunk_gradient(learner.outer_loss, learner.carry_per_task)
    if check.recorded:
        function = Compiled(function, lambda: [*learner.parameters(), *learner.buffers()])
    autocast = AUTOCAST.get(check.precision)
    progress = torch.zeros((), device=device, dtype=dtype)
    params, chunk = learner.meta_parameters(), CHUNKS[check.tasks]
    found = []
    for _ in range(4 if check.recorded else 1):
        carry = learner.training_carry(episode)
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            found.append(meta_gradient(function, params, episode, carry, progress, chunk=chunk).grads)
    return found


def distance(found: Params, expected: Params, names: list[str]) -> float:
    """Norm of the difference, relative to that of ``expected``, over the parameters of these names."""

    def norm(parts: list[Tensor]) -> Tensor:
        return torch.cat([part.double().cpu().flatten() for part in parts]).norm()

    difference = norm([found[name].double().cpu() - expected[name].double().cpu() for name in names])
    return float(difference / norm([expected[name] for name in names]))


def compared_names(check: Check) -> list[str]:
    """All parameters, but for Reptile those whose gradient is rounding alone, which its Adam makes a whole step of.

    These are the biases before a norm.
    """
    learner = learner_of(check)
    convolutions = {f"backbone.{n}.bias" for n, part in learner.backbone.named_modules() if isinstance(part, nn.Conv2d)}
    return [name for name in learner.meta_parameters() if check.algorithm != "Reptile" or name not in convolutions]


@cache
def expected_gradient(algorithm: str, downsample: str) -> Params:
    """The meta-gradient on the CPU in float64, task by task."""
    return gradients(Check(algorithm, "float64", "looped", downsample=downsample), torch.device("cpu"))[0]


def compare(check: Check, device: torch.device) -> dict[str, object]:
    """One row: the error, the spread between runs, and the verdict."""
    expected = expected_gradient(check.algorithm, check.downsample)
    tf32 = check.precision == "float32 TF32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    names, start = compared_names(check), time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = gradients(check, device)
    error = distance(found[-1], expected, names)
    untraceable = any("runs uncompiled" in str(warning.message) for warning in caught)
    return {
        "error": error,
        "between_runs": max(distance(found[-1], other, names) for other in found),
        "seconds": round(time.perf_counter() - start, 2),
        "state": "ok" if error < BOUNDS[check.precision] and not untraceable else "WRONG",
    }


def main() -> int:
    """Compare until the time is up."""
    device, rows, end = torch.device(sys.argv[1]), Rows(sys.argv[2]), time.perf_counter() + float(sys.argv[3])
    for check in list(checks())[:: 6 if REHEARSAL else 1]:
        if check.precision == "16-mixed" and device.type == "cpu":
            continue  # a rehearsal: not every CPU knows float16
        row: dict[str, object] = {"state": "no time left"}
        if time.perf_counter() < end:
            try:
                row = compare(check, device)
            except Exception as error:
                traceback.print_exc()
                row = {"state": short(error)}
        rows.add(**check._asdict(), **row)
    return rows.exit_status()


if __name__ == "__main__":
    sys.exit(main())
