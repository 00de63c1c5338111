"""What bounds the computation on this machine: products, convolutions one by one, the graph with and without Inductor.

    python benchmarks/speed/bounds.py

All on the cores that the process may use: ``taskset -c 0`` before it leaves one. The rate of a large matrix product in
float32 by every library at hand, and from the best of them the least time of each quick case of `throughput.py`. The
convolutions of one task and their gradients as products, one by one: by PyTorch's two libraries from patches that are
in memory (or to patches, which are an input gradient once they are added up), and by our kernels from and to images;
microseconds and GFLOP/s. For the layers of its network, 32 tasks of 5 images with weights of their own: milliseconds of
the grouped convolution, of its input gradient and of its weight gradient, which are as many operations each. Then one
MAML 5w1s meta-gradient of 32 tasks as the traced graph runs, and as ``torch.compile`` makes it. Medians of alternating
runs.
"""

import ctypes
import statistics
import time
from collections.abc import Callable

import torch
from cases import QUICK, data_of, learner_of
from floor import matrix_rates, operations
from torch.fx.experimental.proxy_tensor import make_fx

from lightning_meta.episode import InnerBatches
from lightning_meta.mapping import chunk_gradient
from lightning_meta.mapping.matrix_product import _integers, _Tensor, kernels
from lightning_meta.mapping.patches import Window, patches_of
from lightning_meta.process import keep_freed_memory

TASKS, IMAGES, FILTERS, RUNS, REPEATS = 32, 5, 64, 21, 200
Matrices = tuple[torch.Tensor, torch.Tensor]
WINDOW = Window(size=(3, 3), stride=(2, 2), dilation=(1, 1), padding=(1, 1)).numbers


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
    """Print how fast the convolution of each layer of one task is as a product, and its gradients."""
    print(f"{'product':<36}{'MKL':>14}{'oneDNN':>14}{'ours':>14}   microseconds (GFLOP/s)")
    for size in (14, 7, 4):
        images, weights = torch.randn(IMAGES, size, size, FILTERS), torch.randn(FILTERS, 9 * FILTERS)
        patches = patches_of(images, WINDOW)
        grad = torch.randn(len(patches), FILTERS)
        cases: dict[str, tuple[str, Matrices, Matrices, torch.Tensor]] = {
            "output": ("patches_product", (patches, weights.t()), (images, weights.t()), torch.empty_like(grad)),
            "weight gradient": ("product_patches", (grad.t(), patches), (grad.t(), images), torch.empty_like(weights)),
            "input gradient": ("product_images", (grad, weights), (grad, weights), torch.empty_like(images)),
        }
        for name, (kernel, written, read, out) in cases.items():
            rates = product_rates(kernel, written, read, out)
            print(f"{f'{size} x {size}, {len(patches)} rows: {name}':<36}" + "".join(f"{rate:>14}" for rate in rates))


def product_rates(kernel: str, written: Matrices, read: Matrices, out: torch.Tensor) -> list[str]:
    """Microseconds and GFLOP/s of PyTorch's libraries on matrices in memory, and of our kernel of that name."""
    (a, b), count = written, 2 * written[0].numel() * written[1].shape[1]
    steps: list[Callable[[], object]] = [
        lambda: a @ b,
        lambda: torch.ops.mkldnn._linear_pointwise(a, b.t(), None, "none", [], ""),
    ]
    if library := kernels():
        # As a program calls it, that has the sizes at hand.
        given = [*(ctypes.byref(_Tensor(tensor)) for tensor in (*read, out)), _integers(WINDOW)]
        function = library[f"lightning_meta_{kernel}"]
        steps.append(lambda: function(*given))
    return [f"{1e3 * each:.1f} ({count / each / 1e6:.0f})" for each in medians(steps, REPEATS)]


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
