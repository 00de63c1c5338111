"""Milliseconds of the same meta-steps in JAX: ``vmap`` over tasks, ``jit``, convolutions as im2col and products.

    python benchmarks/gpu/rates_jax.py OUTPUT.json SECONDS [TF32]

In float32, or as JAX takes it unless told otherwise, with TF32 products.
XLA's own convolutions are left out: with weights for every task they are several times slower. A first run in a process
of its own fills the cache of compiled programs that ``JAX_COMPILATION_CACHE_DIR`` names.
"""

import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from settings import FILTERS, REHEARSAL, SETTINGS, WAYS, Rows, Setting, short

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch shares the card

import jax
import jax.numpy as jnp
import numpy as np

Weights = dict[str, Any]
TF32 = "TF32" in sys.argv[3:]
jax.config.update("jax_default_matmul_precision", "default" if TF32 else "highest")


def convolution(x: Any, weight: Any) -> Any:
    """3 x 3 with stride 2: the nine shifted images beside one another, then one product."""
    _, height, width, channels = x.shape
    high, wide = (height + 1) // 2, (width + 1) // 2
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [padded[:, i : i + 2 * high - 1 : 2, j : j + 2 * wide - 1 : 2] for i in range(3) for j in range(3)]
    return jnp.concatenate(taps, -1) @ weight.reshape(9 * channels, -1)


def loss(weights: Weights, x: Any, y: Any, flat: bool) -> Any:
    """Mean cross-entropy of one task's images, (rows, height, width, 1)."""
    for weight, bias, scale, shift in weights["layers"]:
        x = convolution(x, weight) + bias
        centred = x - x.mean((0, 1, 2))
        x = centred * jax.lax.rsqrt(jnp.square(centred).mean((0, 1, 2)) + 1e-5)
        x = jax.nn.relu(x * scale + shift)
    x = x.reshape(len(x), -1) if flat else x.mean((1, 2))
    logits = jax.nn.log_softmax(x @ weights["head"][0] + weights["head"][1])
    return -jnp.take_along_axis(logits, y[:, None], 1).mean()


def step_of(setting: Setting) -> Callable[[], Any]:
    """A meta-gradient of a fixed batch of noise."""
    random = np.random.default_rng(0)
    flat = setting.algorithm == "Reptile"

    def noise(*shape: int) -> Any:
        return jnp.asarray(random.standard_normal(shape) * np.prod(shape[:-1]) ** -0.5, jnp.float32)

    def layer(channels: int) -> tuple[Any, ...]:
        return noise(3, 3, channels, FILTERS), jnp.zeros(FILTERS), jnp.ones(FILTERS), jnp.zeros(FILTERS)

    head = (noise(4 * FILTERS if flat else FILTERS, WAYS), jnp.zeros(WAYS))
    weights = {"layers": [layer(FILTERS if number else 1) for number in range(4)], "head": head}
    rows = WAYS * setting.shots
    x = jnp.asarray(random.random((setting.tasks, rows, 28, 28, 1)), jnp.float32)
    y = jnp.tile(jnp.repeat(jnp.arange(WAYS), setting.shots), (setting.tasks, 1))
    batches = [[random.permutation(rows)[:10] for _ in range(setting.inner_steps)] for _ in range(setting.tasks)]
    order = jnp.asarray(np.array(batches))
    gradient = jax.grad(loss)

    def maml(weights: Weights, x: Any, y: Any) -> Any:
        fast = weights
        for _ in range(setting.inner_steps):
            grads = gradient(fast, x, y, flat)
            grads = jax.lax.stop_gradient(grads) if setting.algorithm == "FOMAML" else grads
            fast = jax.tree.map(lambda weight, grad: weight - 0.4 * grad, fast, grads)
        return loss(fast, x, y, flat)

    def reptile(weights: Weights, x: Any, y: Any, order: Any) -> Any:
        fast, square = weights, jax.tree.map(jnp.zeros_like, weights)
        for step in range(setting.inner_steps):
            grads = gradient(fast, x[order[step]], y[order[step]], flat)
            square = jax.tree.map(lambda mean, grad: 0.999 * mean + 0.001 * grad * grad, square, grads)
            correction = (1 - 0.999 ** (step + 1)) ** -0.5
            fast = jax.tree.map(
                lambda weight, grad, mean: weight - 1e-3 * grad / (jnp.sqrt(mean) * correction + 1e-8),  # noqa: B023
                fast, grads, square,
            )  # fmt: skip
        return jax.tree.map(lambda weight, adapted: weight - adapted, weights, fast)

    def mean_reptile(weights: Weights) -> Any:
        differences = jax.vmap(reptile, (None, 0, 0, 0))(weights, x, y, order)
        return jax.tree.map(lambda difference: difference.mean(0), differences)

    def mean_loss(weights: Weights) -> Any:
        return jax.vmap(maml, (None, 0, 0))(weights, x, y).mean()

    function = jax.jit(mean_reptile if flat else jax.grad(mean_loss))
    return lambda: function(weights)


def measure(setting: Setting) -> dict[str, Any]:
    """Times of a step, as in rates.py."""

    def timed(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            result = step()
        jax.block_until_ready(result)
        return time.perf_counter() - start

    step = step_of(setting)
    first = timed(1)
    timed(2)
    single = [timed(1) for _ in range(3 if REHEARSAL else 20)]
    count = max(int((0.05 if REHEARSAL else 0.4) / statistics.median(single)), 2)
    return {
        "ms": round(1e3 * timed(count) / count, 3),
        "ms_waited_for": round(1e3 * statistics.median(single), 3),
        "first_s": round(first, 2),
    }


def main() -> int:
    """Measure until the time is up."""
    rows, end = Rows(sys.argv[1]), time.perf_counter() + float(sys.argv[2])
    print(jax.__version__, jax.devices(), flush=True)
    for name, setting in SETTINGS.items():
        row: dict[str, Any] = {"state": "no time left"}
        if time.perf_counter() < end:
            try:
                row = {**measure(setting), "state": "ok"}
            except Exception as error:
                traceback.print_exc()
                row = {"state": short(error)}
        rows.add(setting=name, method="JAX, TF32" if TF32 else "JAX", **row)
    return rows.exit_status()


if __name__ == "__main__":
    sys.exit(main())
