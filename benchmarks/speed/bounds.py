"""What bounds the computation on this machine: products, convolutions one by one, the graph with and without Inductor.

    python benchmarks/speed/bounds.py

All on the cores that the process may use: ``taskset -c 0`` before it leaves one. The rate of a large matrix product in
float32 by every library at hand, and from the best of them the least time of each quick case of `throughput.py`. The
products of one task, one by one, by PyTorch's two libraries and our kernel: microseconds and GFLOP/s. For the layers of
its network, 32 tasks of 5 images with weights of their own: milliseconds of the grouped convolution, of its input
gradient and of its weight gradient, which are as many operations each. Then one MAML 5w1s meta-gradient of 32 tasks as
the traced graph runs, and as ``torch.compile`` makes it. Medians of alternating runs.
"""

import statistics
import time
from collections.abc import Callable

import torch
from cases import QUICK, data_of, learner_of
from floor import matrix_rates, operations
from torch.fx.experimental.proxy_tensor import make_fx

from lightning_meta.episode import InnerBatches
from lightning_meta.mapping import chunk_gradient, matrix_product
from lightning_meta.process import keep_freed_memory

TASKS, IMAGES, FILTERS, RUNS, REPEATS = 32, 5, 64, 21, 200
# (rows, inner, columns) of the forward products of one task, layers 1 to 4, and the smallest product of all
PRODUCTS = [(980, 9, 64), (245, 576, 64), (80, 576, 64), (20, 576, 64), (1, 1, 1)]


def medians(steps: list[Callable[[], object]], repeats: int = 1) -> list[float]:
    """Milliseconds of each, of which every turn takes the mean of some repeats."""
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(RUNS + 2):
        for step, measured in zip(steps, times, strict=True):
            start = time.perf_counter()
            for _ in range(repeats):
                step()
            if turn >= 2:
                measured.append(1e3 * (time.perf_counter() - start) / repeats)
    return [statistics.median(measured) for measured in times]


def layer(size: int) -> list[float]:
    """Forward, input gradient, weight gradient of a stride-2 layer on images of that size."""
    x, weight = torch.randn(IMAGES, TASKS * FILTERS, size, size), torch.randn(TASKS * FILTERS, FILTERS, 3, 3)

    def forward() -> torch.Tensor:
        return torch.nn.functional.conv2d(x, weight, stride=2, padding=1, groups=TASKS)

    grad = torch.randn_like(forward())

    def backward(mask: list[bool]) -> object:
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, [2, 2], [1, 1], [1, 1], False, [0, 0], TASKS, mask
        )

    return medians([forward, lambda: backward([True, False, False]), lambda: backward([False, True, False])])


def graphs() -> tuple[list[float], float]:
    """The graph replayed, and compiled; and the seconds that compiling took."""
    case = QUICK[0]
    learner, data = learner_of(case), data_of(case, None)
    data.connect(InnerBatches(case.inner_steps), InnerBatches())
    gradient = chunk_gradient(learner.outer_loss)
    names, values = zip(*learner.meta_parameters().items(), strict=True)
    episode, progress = data.draw("train", torch.arange(case.tasks)), torch.zeros(())

    def flat(*values: torch.Tensor) -> list[torch.Tensor]:
        return list(gradient(dict(zip(names, values, strict=True)), episode, {}, progress).grads.values())

    with torch.no_grad():
        graph = make_fx(flat)(*values)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        compiled = torch.compile(graph)
        start = time.perf_counter()
        compiled(*values)
        seconds = time.perf_counter() - start
        return medians([lambda: graph(*values), lambda: compiled(*values)]), seconds


def products() -> None:
    """Print how fast the products of one task are, each a call, and what a call alone costs."""
    linear, ours = torch.ops.mkldnn._linear_pointwise, matrix_product.kernel() and matrix_product.multiply
    print(f"{'product':<28}{'MKL':>20}{'oneDNN':>20}{'ours':>20}   microseconds (GFLOP/s)")
    for rows, inner, columns in PRODUCTS:
        left, right = torch.randn(rows, inner), torch.randn(inner, columns)
        steps = [lambda: left @ right, lambda: linear(left, right.t(), None, "none", [], "")]  # noqa: B023
        steps += [lambda: ours(left, right, out=torch.empty(rows, columns))] if ours else []  # noqa: B023
        count = 2e-6 * rows * inner * columns
        rates = [f"{1e3 * each:.1f} ({count / each:.0f})" for each in medians(steps, REPEATS)]
        print(f"{f'{rows} x {inner} x {columns}':<28}" + "".join(f"{rate:>20}" for rate in rates))


def floors() -> None:
    """Print the rates of products, and the floor of each case."""
    rates = matrix_rates(torch.device("cpu"))
    fastest = max(rates, key=lambda name: rates[name])
    for name, rate in rates.items():
        print(f"{name:<28}{rate / 1e9:>8.0f} GFLOP/s{'  the floor below' if name == fastest else ''}")
    for case in QUICK:
        learner, data = learner_of(case), data_of(case, None)
        data.connect(learner.training_batches(), learner.evaluation_batches())
        count = operations(learner, data.draw("train", torch.arange(case.tasks)))
        name = f"{case.algorithm} {case.task}, {case.inner_steps} inner step(s)"
        print(f"{name:<28}{count / 1e9:>8.2f} GFLOP  {1e3 * count / rates[fastest]:>6.1f} ms")


def main() -> None:
    """Measure and print."""
    keep_freed_memory()
    torch.manual_seed(0)
    floors()
    products()
    print(f"{'layer':<12}{'forward':>10}{'input grad':>12}{'weight grad':>13}   ms, {torch.get_num_threads()} threads")
    for size in (14, 7, 4):
        forward, to_x, to_weight = layer(size)
        print(f"{f'{size} x {size}':<12}{forward:>10.2f}{to_x:>12.2f}{to_weight:>13.2f}")
    (replayed, compiled), seconds = graphs()
    print(
        f"MAML 5w1s, 32 tasks: graph {replayed:.0f} ms, Inductor {compiled:.0f} ms after {seconds:.0f} s of compiling"
    )


if __name__ == "__main__":
    main()
