"""What is checked of a backbone before it is trained."""

import copy
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lightning_meta.backbones import replace_norms, unmappable_norms
from lightning_meta.episode import Episode, EpisodeSource
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop
from lightning_meta.learner.checks.layouts import layout_remedy
from lightning_meta.learner.linear_head import LinearHead, ends_with_linear
from lightning_meta.params import Params, call

if TYPE_CHECKING:
    from lightning_meta.learner.meta_learner import MetaLearner


def _with_hook(*kinds: type) -> Callable[[nn.Module], bool]:
    """Whether a module computes a weight again before it runs, in the older way of ``torch.nn.utils``."""
    return lambda part: any(isinstance(hook, kinds) for hook in part._forward_pre_hooks.values())


_REMEDIES: dict[Callable[[nn.Module], bool], str] = {  # what a layer is, and what to do
    lambda part: isinstance(part, LazyModuleMixin) and part.has_uninitialized_params(): (
        "whose weights have no shape before it first runs: give its number of inputs, or run the network once on an "
        "example before it is handed over"
    ),
    lambda part: isinstance(part, nn.DataParallel | DistributedDataParallel): (
        "which spreads one batch over several devices: hand over its `module`, and set trainer.devices"
    ),
    lambda part: isinstance(part, torch.jit.ScriptModule): (
        "which is compiled already: hand over the module that it was made from; model.compile traces the meta-gradient"
    ),
    lambda part: isinstance(part, OptimizedModule): (
        "which torch.compile made: hand over the module that it was made from; model.compile traces the meta-gradient"
    ),
    lambda part: isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None: (
        "whose max_norm changes its weights whenever it runs, from task to task: set max_norm to None"
    ),
    lambda part: isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse: (
        "whose gradients are sparse, which the inner loop cannot differentiate: set sparse to False"
    ),
    lambda part: isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.scale_grad_by_freq: (
        "whose gradients depend on how often a row is used in the whole batch: set scale_grad_by_freq to False"
    ),
    lambda part: isinstance(part, _SpectralNorm) or _with_hook(SpectralNorm)(part): (
        "that is, spectral_norm, which changes its own vectors whenever the network runs, from task to task: take "
        "torch.nn.utils.parametrizations.weight_norm or orthogonal"
    ),
    _with_hook(WeightNorm): (
        "which has torch.nn.utils.weight_norm and cannot be copied: take torch.nn.utils.parametrizations.weight_norm"
    ),
}


def check_frozen(backbone: nn.Module, fast: Params, inner: InnerLoop, algorithm: str) -> None:
    """Refuse an inner loop that has nothing to adapt, where other parameters learn."""
    learns = any(parameter.requires_grad for parameter in backbone.parameters())
    if learns and not fast and max(inner.steps, inner.evaluation_steps):
        raise MetaLearningError(
            f"model.backbone {type(backbone).__name__} has no parameter with requires_grad among those that "
            f"{algorithm} adapts: unfreeze some, or take MAML, which adapts all that learn"
        )


def check_layers(backbone: nn.Module, replace: bool) -> None:
    """Refuse layers that cannot be run at other weights than their own, each with what to put in its place.

    Args:
        backbone: the network.
        replace: whether norms are replaced that would be refused otherwise, see `check_norms`.
    """
    for name, part in backbone.named_modules(remove_duplicate=False):
        for found, remedy in _REMEDIES.items():
            if found(part):
                raise MetaLearningError(f"model.backbone holds {type(part).__name__} at {name or 'its root'}, {remedy}")
    check_norms(backbone, replace)


def check_norms(backbone: nn.Module, replace: bool) -> None:
    """Refuse the norms that ``torch.func.vmap`` gets silently wrong in second order, or replace them."""
    norms = unmappable_norms(backbone)
    if norms and replace:
        replace_norms(backbone)
    elif norms:
        shown = ", ".join(f"{name or 'itself'} ({type(norm).__name__})" for name, norm in list(norms.items())[:3])
        raise MetaLearningError(
            f"model.backbone holds {len(norms)} norm(s) whose second derivative is silently wrong when tasks are "
            f"vectorised, and whose running statistics, if any, leak between tasks: {shown}. Set model.replace_norms "
            "to true to put those of lightning_meta.backbones in their place, or use nn.GroupNorm; "
            "Pretrained keeps the running statistics"
        )


def check_backbone(learner: "MetaLearner", source: EpisodeSource, episode: Episode) -> None:
    """Refuse a backbone that does not go with the method or the data, of which this is one episode."""
    backbone = learner.backbone
    ways = episode.classes.shape[1] if learner.any_ways else 0
    check_width(backbone, learner.loss, episode, source.outputs, ways)
    if learner.compares and not learner.needs_linear_head and not ends_with_linear(backbone):
        check_features(backbone, episode, source.outputs)
    elif learner.needs_linear_head or learner.compares:
        check_cut(backbone, learner.head, episode)


def check_width(backbone: nn.Module, loss: Callable[..., Tensor], episode: Episode, outputs: int, ways: int) -> None:
    """Run the backbone and the loss once; refuse inputs, outputs and targets that do not go together.

    Args:
        backbone: the network.
        loss: the learner's.
        episode: of the data.
        outputs: width that the backbone's outputs must have for these data.
        ways: width of what the method makes of them, where their own is free; otherwise 0.
    """
    x, targets = episode.support_x[0], episode.support_y[0]
    name = type(backbone).__name__
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        raise MetaLearningError(f"model.backbone {name} has no parameter that requires a gradient")
    parameter = next(backbone.parameters())
    x = x.to(parameter) if x.is_floating_point() else x.to(parameter.device)
    trial = copy.deepcopy(backbone)  # no check touches a learner's own tensors
    try:
        with torch.no_grad():
            found = trial(x)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        raise MetaLearningError(
            f"model.backbone {name} cannot take inputs of shape {tuple(x.shape)}, as the data give them: {error}. "
            + layout_remedy(x, error)
        ) from error
    buffers = dict(backbone.named_buffers())
    changed = [
        name
        for name, buffer in trial.named_buffers()
        if not torch.equal(buffer.nan_to_num(), buffers[name].nan_to_num())
    ]
    if changed:
        raise MetaLearningError(
            f"model.backbone {name} changes {changed[0]} whenever it runs, which would leak from task to task: switch "
            "its running statistics off, or set model.replace_norms to true where it is a norm of PyTorch"
        )
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(x):
        shown = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise MetaLearningError(f"model.backbone {name} gives {shown}, expected a tensor (rows, outputs)")
    if ways:
        found = found.new_zeros(len(found), ways)
    elif found.shape[1] != outputs:
        raise MetaLearningError(
            f"model.backbone {name} has {found.shape[1]} outputs, but the tasks need {outputs}. The command line sets "
            "the backbone's argument `outputs`; set it by its own name where it has another. A network that is trained "
            "already keeps its outputs"
        )
    targets = targets.to(found) if targets.is_floating_point() else targets.to(found.device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what is refused just below
            shape = tuple(loss(found, targets, reduction="none").shape)
        reason = "" if shape == targets.shape else f"with reduction none it gives shape {shape}"
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
    if reason:
        kind = "mse_loss" if targets.is_floating_point() else "cross_entropy"
        raise MetaLearningError(
            f"model.loss does not fit outputs {tuple(found.shape)} and targets {tuple(targets.shape)} of "
            f"{targets.dtype} ({reason}): set it to torch.nn.functional.{kind}"
        )


def check_features(backbone: nn.Module, episode: Episode, outputs: int) -> None:
    """Refuse to take for features what looks like the outputs of a classifier.

    That is: one for each class of a test task, or what an ``nn.Linear`` gives that is not last in the order of modules.
    """
    given: list[tuple[str, Tensor]] = []
    trial = copy.deepcopy(backbone)
    for name, part in trial.named_modules():
        if isinstance(part, nn.Linear):
            part.register_forward_hook(lambda layer, inputs, output, name=name: given.append((name, output)))
    like = next(trial.parameters())
    x = episode.support_x[0]
    with torch.no_grad():
        found = trial(x.to(like) if x.is_floating_point() else x.to(like.device))
    if found.shape[1] == outputs:
        LinearHead(backbone)  # says what a classifier must end with
    last = [name for name, output in given if output is found]
    if last:
        raise MetaLearningError(
            f"model.backbone {type(backbone).__name__} gives what its torch.nn.Linear at {last[0]} gives, but another "
            "module comes after that: let it be the last that the network makes, as the head that is not used, or "
            "leave it out, so that the network gives features"
        )


def check_cut(backbone: nn.Module, head: LinearHead, episode: Episode) -> None:
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
    with torch.no_grad(), head.watched() as given:
        whole = call(backbone, weights, x)
    name = f"model.backbone {type(backbone).__name__} has its last torch.nn.Linear at {head.name or 'its root'}"
    if len(given) != 1 or given[0].shape != (len(x), head.in_features):
        shown = f"is given {tuple(given[0].shape)}" if len(given) == 1 else f"runs {len(given)} times"
        raise MetaLearningError(
            f"{name}, which {shown}, expected once {(len(x), head.in_features)}: let it be the last layer that the "
            "network runs, on one row of features for each input"
        )
    with torch.no_grad():
        parted = head.outputs(weights, given[0])
    if parted.shape != whole.shape or not torch.allclose(parted, whole, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise MetaLearningError(
            f"{name}, but changes what that gives: this algorithm treats the last layer apart from the features before "
            "it, so let the network return what that layer gives"
        )
