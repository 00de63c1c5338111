"""What a learner refuses, each with the setting, its value, what was expected and what to do."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.strategies import Strategy
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from lightning_meta.backbones import replace_norms, unmappable_norms
from lightning_meta.backbones.head import LinearHead
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop, LayerRates, MetaGradient
from lightning_meta.params import Params

OUTER_REMEDY = "Lower the inner or outer learning rate, or clip with trainer.gradient_clip_val"

_WITH_DROPOUT = (nn.MultiheadAttention, nn.RNNBase)  # of their own, in no module


def refuse_settings(inner: dict[str, Any], task_chunk: int | str) -> None:
    """Refuse counts that make no sense."""
    counts = {f"inner.{name}": inner[name] for name in ("steps", "evaluation_steps", "batch_size")}
    counts |= {"inner.evaluation_batch_size": inner["evaluation_batch_size"]}
    counts |= {} if task_chunk == "auto" else {"task_chunk": task_chunk}
    for name, value in counts.items():
        lowest = 0 if name.endswith("steps") else 1
        if value is not None and (type(value) is not int or value < lowest):
            raise MetaLearningError(f"model.{name} is {value!r}, expected a number that is at least {lowest}")


def refuse_learned_rule(inner: InnerLoop, learned: bool, learns: bool, algorithm: str) -> None:
    """Refuse a rule whose parameters would never change, or that has none for some of the steps."""
    rule = type(inner.optimizer).__name__
    if learned and not learns:
        raise MetaLearningError(
            f"model.inner.optimizer is {rule}, which learns parameters of its own, but {algorithm} gives them no "
            "gradient: set it to SGD or Adam, or take MAML or FOMAML, which do"
        )
    steps = max(inner.steps, inner.evaluation_steps)
    if isinstance(inner.optimizer, LayerRates) and inner.optimizer.steps < steps:
        raise MetaLearningError(
            f"model.inner.optimizer.steps is {inner.optimizer.steps}, but a task takes up to {steps} inner steps "
            f"(model.inner.steps, model.inner.evaluation_steps): set it to {steps}, or lower those"
        )


def refuse_frozen(backbone: nn.Module, fast: Params, inner: InnerLoop, algorithm: str) -> None:
    """Refuse an inner loop that has nothing to adapt, where other parameters learn."""
    learns = any(parameter.requires_grad for parameter in backbone.parameters())
    if learns and not fast and max(inner.steps, inner.evaluation_steps):
        raise MetaLearningError(
            f"model.backbone {type(backbone).__name__} has no parameter with requires_grad among those that "
            f"{algorithm} adapts: unfreeze some, or take MAML, which adapts all that learn"
        )


def refuse_dropout(backbone: nn.Module) -> None:
    """Refuse what is random inside the inner loop."""
    for name, part in backbone.named_modules():
        share = part.p if isinstance(part, _DropoutNd) else part.dropout if isinstance(part, _WITH_DROPOUT) else 0
        if share > 0:
            raise MetaLearningError(
                f"model.backbone holds {type(part).__name__} with p = {share} at {name or 'its root'}, but "
                "nothing random may happen inside the inner loop: set it to 0 or leave it out"
            )


def refuse_norms(backbone: nn.Module, replace: bool) -> None:
    """Refuse the norms that ``torch.func.vmap`` gets silently wrong in second order, or replace them."""
    norms = unmappable_norms(backbone)
    if norms and replace:
        replace_norms(backbone)
    elif norms:
        shown = ", ".join(f"{name or 'itself'} ({type(norm).__name__})" for name, norm in list(norms.items())[:3])
        raise MetaLearningError(
            f"model.backbone holds {len(norms)} norm(s) whose second derivative is silently wrong when tasks are "
            f"vectorised, and whose running statistics, if any, leak between tasks: {shown}. Set model.replace_norms "
            "to true to put those of lightning_meta.backbones in their place, or use nn.GroupNorm"
        )


def refuse_width(backbone: nn.Module, loss: Callable[..., Tensor], episode: Episode, outputs: int) -> None:
    """Run the backbone and the loss once; refuse inputs, outputs and targets that do not go together."""
    x, targets = episode.support_x[0], episode.support_y[0]
    name = type(backbone).__name__
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        raise MetaLearningError(f"model.backbone {name} has no parameter that requires a gradient")
    parameter = next(backbone.parameters())
    x = x.to(parameter) if x.is_floating_point() else x.to(parameter.device)
    buffers = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    try:
        with torch.no_grad():
            found = torch.func.functional_call(backbone, buffers, (x,))
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        raise MetaLearningError(
            f"model.backbone {name} cannot take inputs of shape {tuple(x.shape)}, as the data give them: {error}. "
            "Set the backbone's channels, image size or inputs to match"
        ) from error
    changed = [
        name
        for name, buffer in backbone.named_buffers()
        if not torch.allclose(buffer, buffers[name], rtol=0, atol=0, equal_nan=True)
    ]
    if changed:
        raise MetaLearningError(
            f"model.backbone {name} changes {changed[0]} whenever it runs, which would leak from task to task: switch "
            "its running statistics off, or set model.replace_norms to true where it is a norm of PyTorch"
        )
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(x):
        shown = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise MetaLearningError(f"model.backbone {name} gives {shown}, expected a tensor (rows, outputs)")
    if found.shape[1] != outputs:
        raise MetaLearningError(
            f"model.backbone {name} has {found.shape[1]} outputs, but the tasks need {outputs}. The command line sets "
            "the backbone's argument `outputs`; set it by its own name where it has another"
        )
    targets = targets.to(found) if targets.is_floating_point() else targets.to(found.device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what is refused just below
            fits = loss(found, targets, reduction="none").shape == targets.shape
    except (RuntimeError, ValueError, IndexError):
        fits = False
    if not fits:
        kind = "mse_loss" if targets.is_floating_point() else "cross_entropy"
        raise MetaLearningError(
            f"model.loss does not fit outputs {tuple(found.shape)} and targets {tuple(targets.shape)} of "
            f"{targets.dtype}: set it to torch.nn.functional.{kind}"
        )


def refuse_cut(backbone: nn.Module, head: LinearHead, episode: Episode) -> None:
    """Run the backbone in one piece and in two; refuse one whose last layer is not what it computes last.

    With noise on all weights, since a head that starts from zero hides what comes after it.
    """
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: tensor.detach() + 0.1 * torch.randn(tensor.shape, generator=generator).to(tensor)
        for name, tensor in backbone.named_parameters()
    }
    like = next(iter(weights.values()))
    x = episode.support_x[0]
    x = x.to(like) if x.is_floating_point() else x.to(like.device)
    with torch.no_grad(), head.watched(backbone) as given:
        whole = torch.func.functional_call(backbone, weights, (x,))
    name = f"model.backbone {type(backbone).__name__} has its last torch.nn.Linear at {head.name or 'its root'}"
    if len(given) != 1 or given[0].shape != (len(x), head.features):
        shown = f"is given {tuple(given[0].shape)}" if len(given) == 1 else f"runs {len(given)} times"
        raise MetaLearningError(
            f"{name}, which {shown}, expected once {(len(x), head.features)}: let it be the last layer that the "
            "network runs, on one row of features for each input"
        )
    with torch.no_grad():
        parted = head.outputs_of(backbone, weights, given[0])
    if parted.shape != whole.shape or not torch.allclose(parted, whole, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise MetaLearningError(
            f"{name}, but changes what that gives: this algorithm treats the last layer apart from the features before "
            "it, so let the network return what that layer gives"
        )


def refuse_no_queries(queries: int, algorithm: str) -> None:
    """Refuse training episodes without queries for an algorithm that learns from them."""
    if queries < 1:
        raise MetaLearningError(f"data.train_queries is {queries}, but {algorithm} learns from queries: raise it")


def refuse_no_classes(found: int, data: str) -> None:
    """Refuse to train a classifier on classes that the data do not number."""
    if not found:
        raise MetaLearningError(
            f"data.class_path is {data}, whose tasks do not say which classes their labels are: joint training needs a "
            "data module of this package that draws from classes, such as OmniglotEpisodes or ArrayEpisodes"
        )


def refuse_other_classes(own: int, found: int) -> None:
    """Refuse to go on training a classifier on other classes."""
    if own != found:
        raise MetaLearningError(
            f"the classifier tells {own} training classes apart, but what it is to go on from or be trained on has "
            f"{found}: give data and checkpoint of one run, as its config.yaml names them, or start anew"
        )


def refuse_regression(episode: Episode, data: str, algorithm: str) -> None:
    """Refuse targets that are no labels."""
    if episode.support_y.is_floating_point():
        raise MetaLearningError(
            f"data.class_path is {data}, whose targets are real values, but {algorithm} compares classes: take MAML or "
            "another algorithm with an inner loop, and model.loss torch.nn.functional.mse_loss"
        )


def refuse_monitor(callbacks: list[Checkpoint], episode: Episode) -> None:
    """Refuse to wait for an accuracy that real targets do not have."""
    monitors = [callback.monitor for callback in callbacks if isinstance(callback, ModelCheckpoint)]
    if "val_accuracy" in monitors and episode.support_y.is_floating_point():
        raise MetaLearningError(
            "checkpoint.monitor is val_accuracy, but these data have real targets, of which only a loss is measured: "
            "set checkpoint.monitor to val_loss and checkpoint.mode to min"
        )


def refuse_accumulation(carries: bool, batches: int) -> None:
    """Refuse to accumulate batches where each would start from the moments that the one before it left."""
    if carries and batches > 1:
        raise MetaLearningError(
            f"trainer.accumulate_grad_batches is {batches}, but the inner optimizer's moments are carried from one "
            "to the next: raise data.meta_batch_size instead (model.task_chunk bounds the memory), or set "
            "model.carry_moments to false"
        )


def refuse_ranks(serial: bool, task_carry: bool, algorithm: str, ranks: int) -> None:
    """Refuse several ranks where tasks run one after another, or have what one rank's checkpoint cannot hold."""
    if task_carry and ranks > 1:
        raise MetaLearningError(
            f"{algorithm} keeps the weights of every task from one meta-step to the next, on one rank, but there are "
            f"{ranks}: set trainer.devices and trainer.num_nodes to 1"
        )
    if serial and ranks > 1:
        raise MetaLearningError(
            f"model.serial is true, which runs the tasks one after another on one rank, but there are {ranks}: "
            "set trainer.devices to 1 or model.serial to false"
        )


def refuse_divergence(
    result: MetaGradient, episode: Episode, step: int, strategy: Strategy, remedy: str = OUTER_REMEDY
) -> None:
    """Stop before parameters or checkpoints are spoilt, on all ranks together, and say the algorithm's remedy."""
    finite = result.losses.isfinite()
    entries = torch.stack([grad.sum() for grad in result.grads.values()])
    sound = bool(finite.all() & entries.isfinite().all())
    if strategy.reduce_boolean_decision(sound):
        return
    if not finite.all():
        where = f"the outer loss of task(s) {episode.number[~finite].tolist()[:5]} is not finite"
    else:
        where = "the meta-gradient is not finite" if not sound else "another rank met a value that is not finite"
    raise MetaLearningError(f"meta-step {step}: {where}. The last checkpoint is untouched. {remedy}")


def refuse_checkpoint(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Refuse a checkpoint whose tensors have other names or shapes, before any of them is loaded."""
    wrong = [f"{name} is missing" for name in expected.keys() - found.keys()]
    wrong += [f"{name} is not expected" for name in found.keys() - expected.keys()]
    wrong += [
        f"{name} has shape {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if found[name].shape != expected[name].shape
    ]
    if wrong:
        raise MetaLearningError(
            f"the checkpoint is of another architecture or algorithm: {'; '.join(sorted(wrong)[:3])}"
            + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
            + ". Use the config.yaml that stands in the folder of the checkpoint's run"
        )


def refuse_defaults(names: set[str]) -> None:
    """Refuse to put defaults in the place of arguments that a checkpoint could not hold."""
    names = names & {"inner", "loss", "lr_scheduler"}  # the others do not change what is computed
    if names:
        raise MetaLearningError(
            f"the checkpoint was trained with its own {', '.join(sorted(names))}, which could not be written down: "
            "give the same again, as in load_from_checkpoint(path, backbone=..., inner=...)"
        )


def refuse_length(planned: int, steps: int) -> None:
    """Refuse to go on with a schedule that was made for a run of another length."""
    if planned != steps:
        raise MetaLearningError(
            f"trainer.max_steps is {steps}, but the checkpoint's schedule was made for {planned} meta-steps: "
            f"set trainer.max_steps to {planned}, or model.lr_scheduler to null"
        )
