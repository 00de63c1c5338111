"""Checks of the outer loss before training, on two small tasks of noise: what it uses, and whether it vectorises."""

import copy
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils import checkpoint

from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.learner.checks.randomness import check_randomness
from lightning_meta.learner.losses import loss_name, raised_in_loss
from lightning_meta.mapping import MappableDraws, author_line, chunk_gradient, defined_at, kept_generators, seeded
from lightning_meta.mapping.randomness import Randomness
from lightning_meta.params import Params, trainable

if TYPE_CHECKING:
    from lightning_meta.learner.meta_learner import MetaLearner

_SUPPORT, _QUERIES = 4, 2  # rows of these tasks at least, which need not learn anything
_NOT_SHARED = "not currently support same randomness"  # vmap's words where tasks cannot draw what a loop draws


def check_vectorising(learner: "MetaLearner", task: Episode, carry: Any) -> None:
    """Compare the meta-gradient of two vectorised tasks of noise with that of a loop, in float64 where it can be.

    PyTorch's norms have shown that ``torch.func.vmap`` can differentiate wrongly without an error. Both tasks draw the
    same random numbers here, so that a loop can draw them, too.

    Args:
        learner: what is about to be trained; it is left as it is.
        task: one real task, for its shapes and labels.
        carry: what the tasks start from; of one task where every task has its own.

    Raises:
        MetaLearningError: the two differ, or vectorising fails; with the module where it does.
    """
    exact = copy.copy(learner)  # with modules of its own in float64
    modules = {name: part for name, part in learner._modules.items() if part is not None}
    exact.__dict__["_modules"] = {name: part.double() for name, part in copy.deepcopy(modules).items()}
    exact.__dict__.pop("head", None)  # it would run the learner's own network
    carries = pytree.tree_map(Tensor.double, carry), carry
    # The learner itself where a loss or a backbone brings float32 of its own.
    for trial, own_carry, tolerance in zip((exact, learner), carries, (1e-6, 1e-2), strict=True):
        tasks = _two_tasks(task, next(trial.parameters()).dtype)
        gradient = partial(_gradient, trial, own_carry)
        network = trial.backbone
        try:
            with _running(network) as running:
                looped = [gradient(single) for single in tasks.chunks(1)]
        except (RuntimeError, NotImplementedError) as error:
            failure = _where(trial, running, error), error
            continue
        try:
            with _running(network) as running:
                if learner.task_map.draws:
                    gradient(tasks, "different")  # as in training
                mapped = gradient(tasks)
        except (RuntimeError, NotImplementedError) as error:
            if _NOT_SHARED in str(error):
                return
            raise MetaLearningError(
                f"{_where(trial, running, error)}, so {type(learner).__name__} cannot be vectorised over tasks. Set "
                "model.task_chunk to 1, which takes tasks one by one, or replace this operation"
            ) from error
        off = _distance(mapped, looped)
        if not off <= tolerance:  # nor where one is not a number
            plain = _with_another_loss(trial)
            kinds = sorted({type(part).__name__ for part in network.modules() if not list(part.children())})
            part = "model.backbone"
            wrong = f"what torch.func.vmap differentiates wrongly, which is one of {', '.join(kinds)}"
            with suppress(RuntimeError, NotImplementedError):
                other = partial(_gradient, plain, own_carry)
                if _distance(other(tasks), [other(single) for single in tasks.chunks(1)]) <= tolerance:
                    part, wrong = f"model.loss {loss_name(learner.loss)}", "the loss"
            raise MetaLearningError(
                f"{part} gets a wrong meta-gradient when tasks are vectorised: it is off by {off:.1g} of its size, "
                f"although nothing failed. Set model.task_chunk to 1, or replace {wrong}"
            )
        return
    raise MetaLearningError(f"the meta-gradient cannot be computed: {failure[0]}") from failure[1]


def check_first_episode(learner: "MetaLearner", episode: Episode) -> None:
    """Check the outer loss by the first episode of a loader that is not of a data module.

    Raises:
        MetaLearningError: as `check_outer_loss` and `check_vectorising`.
    """
    batches = learner.training_batches()
    task = Episode(*(tensor[0] for tensor in episode))._replace(inner_order=episode.inner_order[0, : batches.steps])
    with kept_generators(learner.device), torch.autocast(learner.device.type, enabled=False):
        carry = learner.training_carry(Episode(*(tensor[:1] for tensor in episode)))
        check_outer_loss(learner, task, carry)
        if learner.task_map.vectorised and learner.device.type == "cpu":  # where its noise is drawn
            check_vectorising(learner, task, carry)


def check_outer_loss(learner: "MetaLearner", task: Episode, carry: Any) -> None:
    """Run the outer loss of one task of noise; refuse what it returns, and what would never learn.

    That is a tensor that it uses behind ``params``, since the meta-gradient is taken in ``params`` alone, and a module
    of the method that it does not reach at all. Whether random numbers are drawn is told to the learner's ``task_map``.

    Args:
        learner: what is about to be trained.
        task: one real task, for its shapes and labels.
        carry: what the tasks start from; of one task where every task has its own.

    Raises:
        MetaLearningError: as above, by name and with the right call.
    """
    name = f"{type(learner).__name__}.outer_loss{defined_at(learner.outer_loss)}"
    params = {key: value.requires_grad_() for key, value in learner.meta_parameters().items()}
    like = next(iter(params.values()))
    single = next(_two_tasks(task, like.dtype).chunks(1))
    one_task = Episode(*(tensor[0].to(like.device) for tensor in single))
    own_carry = pytree.tree_map(lambda leaf: leaf[0], carry) if learner.carry_per_task else carry
    run = partial(_outer_loss(learner), params, one_task, own_carry, like.new_zeros(()))
    with _without_logging(learner):
        learner.task_map.draws = check_randomness(learner, run, like.device)
    try:
        with torch.enable_grad():
            result = run()
    except (RuntimeError, NotImplementedError):
        return  # the meta-step says what is wrong, with a hint to the module
    _check_result(name, result, own_carry)
    parameters = {key: value for key, value in learner.named_parameters() if value.requires_grad}
    if result[0].requires_grad:
        wanted = [*parameters.values(), *params.values()]
        grads = torch.autograd.grad(result[0], wanted, allow_unused=True)
        reached = [grad is not None for grad in grads]
        direct = [key for key, found in zip(parameters, reached, strict=False) if found]
        through = [key for key, found in zip(params, reached[len(parameters) :], strict=True) if found]
        _check_reached(learner, name, direct, list(params), through)


def _check_result(name: str, result: Any, carry: Any) -> None:
    """Refuse what is not a scalar loss with a carry of the same structure as the one that was given."""
    found = result[0] if isinstance(result, tuple) and len(result) == 2 else None
    if not isinstance(found, Tensor) or found.dim():
        shown = f"a tensor of shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        if isinstance(found, Tensor):
            shown = f"a loss of shape {tuple(found.shape)}"
        raise MetaLearningError(f"{name} returned {shown}, expected (loss, carry) with a scalar loss: return both")
    if pytree.tree_structure(result[1]) != pytree.tree_structure(carry):
        raise MetaLearningError(
            f"{name} returned a carry that differs in structure from the one it was given: hand on what the task "
            "leaves, or `carry` itself where nothing changes"
        )


def _check_reached(learner: "MetaLearner", name: str, direct: list[str], params: list[str], through: list[str]) -> None:
    """Refuse parameters that are used behind ``params``, and a module of the method's own that is not reached.

    Args:
        learner: what is about to be trained.
        name: of its outer loss.
        direct: parameters that the loss depends on although they are not those of ``params``.
        params: names of all.
        through: names of those that it depends on as it should.
    """
    if direct:
        whole = ", and let `start` and `unadapted_params` together give complete weights"
        raise MetaLearningError(
            f"{name} uses {', '.join(direct[:3])} directly, which would never learn: the meta-gradient is taken in "
            f"`params` alone. Use {_call(direct[0])} instead{whole if direct[0].startswith('backbone.') else ''}"
        )
    if learner.variant_at(0.0) is not None:
        return  # another variant may reach more
    reached = {key.partition(".")[0] for key in through} | {"backbone", "inner_parameters", "loss"}
    lost = [key for key in params if key.partition(".")[0] not in reached]
    if lost:
        raise MetaLearningError(
            f"{name} does not depend on {', '.join(lost[:3])} through `params`, or only through gradients that "
            f"second_order=False holds constant, so that they would never learn: let the loss use {_call(lost[0])}, or "
            "freeze them with requires_grad_(False)"
        )


def _call(parameter: str) -> str:
    """How a method uses a parameter, or the module that has it."""
    module = parameter.partition(".")[0] if "." in parameter else ""
    if module == "backbone":
        return "self.run_backbone(weights, x)"
    return f'self.run("{module}", params, x)' if module else f'params["{parameter}"]'


class _LoggedError(Exception):
    """A method logs inside its outer loss."""


@contextmanager
def _without_logging(learner: "MetaLearner") -> Iterator[None]:
    """Refuse calls of ``self.log`` and ``self.log_dict``, which a graph would not repeat."""

    def refuse(*args: Any, **settings: Any) -> None:
        raise _LoggedError

    learner.__dict__.update(log=refuse, log_dict=refuse)
    try:
        yield
    except _LoggedError as error:
        raise MetaLearningError(
            f"{type(learner).__name__} logs inside outer_loss{author_line(error)}, which is traced once and replayed: "
            "override log_training(loss, episode), where self.log works"
        ) from None
    finally:
        del learner.__dict__["log"], learner.__dict__["log_dict"]


def _outer_loss(learner: "MetaLearner") -> Any:
    variant = learner.variant_at(0.0)
    loss: Any = learner.outer_loss  # which takes a variant where there is one
    return loss if variant is None else partial(loss, variant=variant)


def _gradient(learner: "MetaLearner", carry: Any, tasks: Episode, randomness: Randomness = "same") -> Params:
    params = trainable(learner)
    progress = torch.zeros((), dtype=next(iter(params.values())).dtype)
    if learner.carry_per_task:
        carry = pytree.tree_map(lambda leaf: leaf[:1].expand(tasks.tasks, *leaf.shape[1:]), carry)
    gradient = chunk_gradient(_outer_loss(learner), learner.carry_per_task, randomness)
    with seeded(progress.device, "check"), MappableDraws(randomness):
        return gradient(params, tasks, carry, progress).grads


def _distance(mapped: Params, looped: list[Params]) -> float:
    """How far the meta-gradient of vectorised tasks is from the sum of those of single ones, relative to its size."""
    rest = sum((mapped[name] - sum(grads[name] for grads in looped)).square().sum() for name in mapped)
    return float(rest / sum(grad.square().sum() for grad in mapped.values())) ** 0.5 if rest else 0.0


def _with_another_loss(learner: "MetaLearner") -> "MetaLearner":
    """The same learner with a loss that vectorises: where that is right, the learner's own loss is wrong."""
    plain = copy.copy(learner)
    plain.__dict__["_modules"] = {name: part for name, part in learner._modules.items() if name != "loss"}
    plain.__dict__["loss"] = lambda outputs, targets, reduction: outputs.logsumexp(-1).square().mean()
    return plain


def _where(learner: "MetaLearner", running: list[str], error: Exception) -> str:
    """What failed: the loss, the part of the backbone that was running, or else the author's line."""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")
    if any(frame.filename == checkpoint.__file__ for frame in traceback.extract_tb(error.__traceback__)):
        reason = (
            "torch.utils.checkpoint does not work in torch.func: call the block itself (task_chunk bounds the memory)"
        )
    if raised_in_loss(learner.loss, error):
        return f"model.loss {loss_name(learner.loss)}: {reason}{author_line(error)}"
    if not running:
        return f"{reason}{author_line(error)}"
    name = running[-1]
    part = f"model.backbone, {name or 'its root'} ({type(learner.backbone.get_submodule(name)).__name__})"
    return f"{part}: {reason}{author_line(error)}"


def _two_tasks(task: Episode, dtype: torch.dtype) -> Episode:
    """Tasks of few rows, noise where the inputs are numbers, so that no two rounding errors decide between equals."""
    generator = torch.Generator().manual_seed(0)

    def rows(tensor: Tensor, count: int) -> Tensor:
        spread = torch.linspace(0, len(tensor) - 1, min(count, len(tensor))).long()  # over the classes
        pair = torch.stack([tensor[spread], tensor[spread]])
        if not pair.is_floating_point():
            return pair
        return torch.rand(pair.shape, generator=generator, dtype=dtype)

    count = min(max(_SUPPORT, task.classes.shape[-1]), len(task.support_x))  # some of every class
    order = task.inner_order[None].expand(2, -1, -1)[:, :, :count] % count
    support = rows(task.support_x, count), rows(task.support_y, count)
    queries = rows(task.query_x, _QUERIES), rows(task.query_y, _QUERIES)
    return Episode(*support, *queries, order, torch.arange(2), task.classes.expand(2, -1))


@contextmanager
def _running(network: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are running, the innermost last, also after an error."""
    running: list[str] = []

    def leave(*_: Any) -> None:
        running.pop()

    hooks = [part.register_forward_hook(leave) for part in network.modules()]
    for name, part in network.named_modules():
        hooks.append(part.register_forward_pre_hook(lambda *_, name=name: running.append(name)))
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()
