"""JAX, as one would write it first and as it is fastest on a CPU; jitted, Adam or the interpolation included."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from jax import lax
from jax import numpy as jnp
from jax.example_libraries import optimizers
from torch import Tensor

from contenders import INNER_RATE, REPTILE_RATE, Contender, Problem
from lightning_meta.params import Params

Weights = dict[str, Any]
Convolution = Callable[[Any, Any], Any]
LAYERS = 4

jax.config.update("jax_default_matmul_precision", "highest")  # no TF32


def obvious(problem: Problem) -> Contender:
    """``vmap`` over tasks of XLA's convolution."""
    return _in_precision(problem, _native, scanned=False)


def best(problem: Problem) -> Contender:
    """A scan over tasks that adds up their gradients, and convolutions as nine shifted images and one product."""
    return _in_precision(problem, _product, scanned=True)


def _in_precision(problem: Problem, convolution: Convolution, scanned: bool) -> Contender:
    """JAX knows float64 only within this setting."""
    double = next(problem.learner.parameters()).dtype is torch.float64
    with jax.enable_x64(double):
        contender = _contender(problem, convolution, scanned)

    def step() -> None:
        with jax.enable_x64(double):
            contender.step()

    return contender._replace(step=step)


def _native(x: Any, weight: Any) -> Any:
    return lax.conv_general_dilated(x, weight, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _product(x: Any, weight: Any) -> Any:
    rows, height, width, channels = x.shape
    high, wide = (height + 1) // 2, (width + 1) // 2
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [
        lax.slice(padded, (0, i, j, 0), (rows, i + 2 * high - 1, j + 2 * wide - 1, channels), (1, 2, 2, 1))
        for i in range(3)
        for j in range(3)
    ]
    columns = jnp.concatenate(shifted, -1).reshape(-1, 9 * channels)
    return (columns @ weight.reshape(9 * channels, -1)).reshape(rows, high, wide, -1)


def _loss(convolution: Convolution, weights: Weights, x: Any, y: Any) -> Any:
    """Mean cross-entropy of one task's images, (rows, height, width, channels)."""
    for layer in range(LAYERS):
        x = convolution(x, weights[f"{3 * layer}.weight"]) + weights[f"{3 * layer}.bias"]
        centred = x - x.mean((0, 1, 2))
        x = centred * lax.rsqrt(jnp.square(centred).mean((0, 1, 2)) + 1e-5)
        x = jax.nn.relu(x * weights[f"{3 * layer + 1}.weight"] + weights[f"{3 * layer + 1}.bias"])
    head = weights["13.weight"]
    x = x.mean((1, 2)) if len(head) == x.shape[-1] else x.reshape(len(x), -1)
    logits = jax.nn.log_softmax(x @ head + weights["13.bias"])
    return -jnp.take_along_axis(logits, y[:, None], 1).mean()


def _contender(problem: Problem, convolution: Convolution, scanned: bool) -> Contender:
    case, episode = problem.case, problem.episode
    weights = {
        name.removeprefix("backbone."): _to_jax(value) for name, value in problem.learner.meta_parameters().items()
    }
    x, y, query_x, query_y = (
        jnp.asarray((tensor.movedim(2, -1) if tensor.dim() == 5 else tensor).cpu().numpy()) for tensor in episode[:4]
    )
    gradient = jax.grad(lambda weights, x, y: _loss(convolution, weights, x, y))

    def task_loss(weights: Weights, x: Any, y: Any, query_x: Any, query_y: Any) -> Any:
        fast = weights
        for _ in range(case.inner_steps):
            grads = gradient(fast, x, y)
            grads = lax.stop_gradient(grads) if case.algorithm == "FOMAML" else grads
            fast = jax.tree.map(lambda weight, grad: weight - INNER_RATE * grad, fast, grads)
        return _loss(convolution, fast, query_x, query_y)

    def move(correction: Any, weight: Any, grad: Any, mean: Any) -> Any:
        return weight - REPTILE_RATE * grad / (jnp.sqrt(mean) / correction + 1e-8)

    def interpolation(weights: Weights, moments: Any, x: Any, y: Any, order: Any) -> Any:
        """Reptile's difference of one task, and its moments of Adam, without momentum."""
        fast, (square, count) = weights, moments
        for rows in order:
            grads, count = gradient(fast, x[rows], y[rows]), count + 1
            square = jax.tree.map(lambda mean, grad: 0.999 * mean + 0.001 * grad * grad, square, grads)
            fast = jax.tree.map(partial(move, jnp.sqrt(1 - 0.999**count)), fast, grads, square)
        return jax.tree.map(jnp.subtract, weights, fast), (square, count)

    def mean(function: Callable[..., Any], tasks: tuple[Any, ...]) -> Any:
        if not scanned:
            return jax.tree.map(lambda leaf: leaf.mean(0), jax.vmap(function)(*tasks))

        def add(total: Any, task: Any) -> Any:
            return jax.tree.map(jnp.add, total, function(*task)), None

        shapes = jax.eval_shape(function, *(tensor[0] for tensor in tasks))
        total, _ = lax.scan(add, jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes), tasks)
        return jax.tree.map(lambda leaf: leaf / case.tasks, total)

    def meta_gradient(weights: Weights, moments: Any) -> Any:
        if case.algorithm == "Reptile":
            order = jnp.asarray(episode.inner_order.cpu().numpy())
            return mean(lambda *task: interpolation(weights, moments, *task), (x, y, order))
        tasks = (x, y, query_x, query_y)
        if scanned:
            return mean(lambda *task: jax.grad(task_loss)(weights, *task), tasks), moments
        return jax.grad(lambda weights: mean(lambda *task: task_loss(weights, *task), tasks))(weights), moments

    init, update, params_of = optimizers.sgd(1.0) if case.algorithm == "Reptile" else optimizers.adam(1e-3)

    @jax.jit
    def meta_step(number: Any, outer: Any, moments: Any) -> Any:
        grads, moments = meta_gradient(params_of(outer), moments)
        return number + 1, update(number, grads, outer), moments, grads

    moments = (jax.tree.map(jnp.zeros_like, weights), jnp.zeros((), x.dtype))
    state = (jnp.zeros((), jnp.int32), init(weights), moments, weights)

    compiled = meta_step.lower(*state[:3]).compile()

    def step() -> None:
        nonlocal state
        state = jax.block_until_ready(compiled(*state[:3]))

    def last_gradient() -> Params:
        like = problem.learner.meta_parameters()
        return {name: _to_torch(state[3][name.removeprefix("backbone.")], value) for name, value in like.items()}

    return Contender(step, last_gradient)


def _to_jax(value: Tensor) -> Any:
    """Convolutions as (height, width, in, out); the head as (features, outputs), features in the order of pixels."""
    value = value.detach().cpu()
    if value.dim() == 4:
        value = value.permute(2, 3, 1, 0)
    elif value.dim() == 2:
        value = value.unflatten(1, (64, -1)).permute(2, 1, 0).flatten(0, 1)
    return jnp.asarray(value.numpy())


def _to_torch(value: Any, like: Tensor) -> Tensor:
    """The inverse."""
    tensor = torch.from_numpy(np.array(value)).to(like.device)
    if like.dim() == 4:
        tensor = tensor.permute(3, 2, 0, 1)
    elif like.dim() == 2:
        tensor = tensor.unflatten(0, (-1, 64)).permute(2, 1, 0).flatten(1)
    return tensor
