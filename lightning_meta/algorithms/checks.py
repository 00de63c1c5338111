"""What a learner refuses, each with the setting, its value, what was expected and what to do."""

import torch
from pytorch_lightning.strategies import Strategy
from torch import Tensor, nn

from lightning_meta.backbones import replace_norms, unmappable_norms
from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import MetaGradient


def refuse_settings(steps: int, evaluation_steps: int, batch_size: int | None, task_chunk: int | None) -> None:
    """Refuse counts that make no sense."""
    counts = {"inner.steps": steps, "inner.evaluation_steps": evaluation_steps}
    counts |= {"inner.batch_size": batch_size or 1 if batch_size is None else batch_size}
    counts |= {"task_chunk": 1 if task_chunk is None else task_chunk}
    for name, value in counts.items():
        lowest = 0 if name.endswith("steps") else 1
        if value < lowest:
            raise MetaLearningError(f"model.{name} is {value}, expected at least {lowest}")


def refuse_norms(backbone: nn.Module, replace: bool) -> None:
    """Refuse the norms that ``torch.func.vmap`` gets silently wrong in second order, or replace them."""
    norms = unmappable_norms(backbone)
    if norms and replace:
        replace_norms(backbone)
    elif norms:
        shown = ", ".join(f"{name or 'itself'} ({type(norm).__name__})" for name, norm in list(norms.items())[:3])
        raise MetaLearningError(
            f"model.backbone holds {len(norms)} norm(s) whose second derivative is silently wrong when tasks are "
            f"vectorised, and whose running statistics leak between tasks: {shown}. Set model.replace_norms to true to "
            "put lightning_meta.backbones.BatchNorm or InstanceNorm in their place, or use nn.GroupNorm"
        )


def refuse_width(backbone: nn.Module, episode: Episode, outputs: int) -> None:
    """Run the backbone once and refuse inputs that it cannot take or outputs that are not one for each way."""
    x = episode.support_x[0]
    name = type(backbone).__name__
    parameter = next(backbone.parameters(), x)
    x = x.to(parameter) if x.is_floating_point() else x.to(parameter.device)
    try:
        with torch.no_grad():
            width = backbone(x).shape[-1]
    except (RuntimeError, ValueError, IndexError) as error:
        raise MetaLearningError(
            f"model.backbone {name} cannot take inputs of shape {tuple(x.shape)}, as the data give them: {error}. "
            "Set the backbone's channels, image size or inputs to match"
        ) from error
    if width != outputs:
        raise MetaLearningError(
            f"model.backbone {name} has {width} outputs, but the tasks need {outputs}. The command line gives it "
            "to the backbone's argument `outputs`; set the argument by its own name where it has another"
        )


def refuse_ranks(serial: bool, ranks: int) -> None:
    """Refuse tasks one after another on several ranks."""
    if serial and ranks > 1:
        raise MetaLearningError(
            f"model.serial is true, which runs the tasks one after another on one rank, but there are {ranks}: "
            "set trainer.devices to 1 or model.serial to false"
        )


def refuse_divergence(result: MetaGradient, episode: Episode, step: int, strategy: Strategy) -> None:
    """Stop before parameters or checkpoints are spoilt, on all ranks together."""
    finite = result.losses.isfinite()
    entries = torch.stack([grad.sum() for grad in result.grads.values()])
    sound = bool(finite.all() & entries.isfinite().all())
    if strategy.reduce_boolean_decision(sound):
        return
    if not finite.all():
        where = f"the outer loss of task(s) {episode.number[~finite].tolist()[:5]} is not finite"
    else:
        where = "the meta-gradient is not finite" if not sound else "another rank met a value that is not finite"
    raise MetaLearningError(
        f"meta-step {step}: {where}. The last checkpoint is untouched. Lower the inner or outer learning rate, "
        "or clip with trainer.gradient_clip_val"
    )


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
