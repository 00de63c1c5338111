"""What is checked of a checkpoint before it is loaded."""

from typing import TYPE_CHECKING, Any, NamedTuple

from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lightning_meta.errors import MetaLearningError

if TYPE_CHECKING:
    from lightning_meta.learner.meta_learner import MetaLearner

SIZES = ("image_size", "channels", "x", "dimensions")  # settings of data modules that say how large inputs are
_NEEDED_BY_A_FIT = {"optimizer_states": "the state of the outer optimizer", "loops": "how far the run was"}


class Changed(NamedTuple):
    """A setting that is another in a checkpoint than in the learner that is to take it over."""

    name: str
    saved: str
    own: str


def check_method(kind: type, trained_alike: tuple[str, ...], method: str | None) -> None:
    """Refuse a checkpoint of another method, whose weights would be read as something that they are not.

    Args:
        kind: class of the learner.
        trained_alike: names of methods whose training is the same.
        method: import path of the checkpoint's class; None in older checkpoints.
    """
    if method is None:
        return
    name = method.rpartition(".")[2]
    if name not in {parent.__name__ for parent in kind.__mro__} | {*trained_alike}:
        raise MetaLearningError(
            f"the checkpoint was trained by {name}, but model is {kind.__name__}: set model to {name} (in Python: "
            f"{name}.load_from_checkpoint), or use the config.yaml that stands in the folder of the checkpoint's run"
        )


def check_resumable(checkpoint: dict[str, Any], source: Any, steps: int, scheduled: bool) -> None:
    """Refuse to go on with a training of which the checkpoint does not hold everything.

    Args:
        checkpoint: as Lightning reads it.
        source: data module of the fit, if any.
        steps: ``trainer.max_steps``.
        scheduled: whether the outer rate follows a schedule.
    """
    lacks = [text for key, text in _NEEDED_BY_A_FIT.items() if not checkpoint.get(key)]
    if source is not None and source.state_dict() and type(source).__qualname__ not in checkpoint:
        data = checkpoint.get("trained_on", {}).get("data")
        if data not in (None, type(source).__name__):
            raise MetaLearningError(
                f"the checkpoint was trained on {data}, but data is {type(source).__name__}: a fit goes on with "
                f"its own stream of tasks, so set data to {data}"
            )
        lacks.append(f"how many tasks of {type(source).__name__} were used")
    if lacks:
        raise MetaLearningError(
            f"a fit cannot go on from this checkpoint, which does not hold {', '.join(lacks)}: it was saved with "
            "checkpoint.save_weights_only or cut down to its weights. Take the last.ckpt of a run, or only test it"
        )
    done = checkpoint.get("global_step", 0)
    if done > steps > 0:
        raise MetaLearningError(
            f"trainer.max_steps is {steps}, but the checkpoint has done {done} meta-steps: raise it, or only test it"
        )
    if scheduled and "max_steps" in checkpoint:
        check_length(checkpoint["max_steps"], steps)


def check_outer_settings(changed: list[Changed]) -> None:
    """Refuse settings of the outer optimizer and its schedule that the checkpoint's state would overwrite silently."""
    for name, saved, own in changed:
        part = name.split(".")[1]
        if part == "optimizer" or (part == "lr_scheduler" and own != "None"):
            raise MetaLearningError(
                f"{name} is {own}, but the run goes on with the state of its {part}, in which it is {saved}: set it to "
                f"{'null' if saved == 'None' else saved}"
            )


def check_outer_state(saved: list[dict[str, Any]], own: list[dict[str, Any]], scheduled: bool) -> None:
    """Refuse an outer optimizer in whose settings a checkpoint's state would put others, as loading it does.

    Args:
        saved: groups of parameters in the checkpoint's state.
        own: those of the optimizer as it was made now.
        scheduled: whether a schedule changes rates and the like, of which only the names are compared.
    """
    for old, new in zip(saved, own, strict=False):
        for name in sorted(new.keys() - {"params"}):
            if name not in old or (not scheduled and old[name] != new[name]):
                was = f"has {old[name]}" if name in old else f"knows no {name}"
                raise MetaLearningError(
                    f"{name} of the outer optimizer is {new[name]}, but the run goes on with the state of one that "
                    f"{was}: set model.optimizer to what the run began with"
                )


def check_tensors(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
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
            f"the checkpoint comes from a different architecture or algorithm: {'; '.join(sorted(wrong)[:3])}"
            + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
            + ". Use the config.yaml that stands in the folder of the checkpoint's run"
        )


def check_same_tasks(learner: "MetaLearner", trained: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse tasks of other inputs, or of other ways where that matters, than those that weights were trained on.

    Args:
        learner: whose weights do not fit them.
        trained: what a checkpoint says of its data, see `describe_source`.
        given: the same of the data at hand.
    """
    data, name = trained.get("data"), given["data"]
    other = f"set data to {data}" if data not in (None, name) else ""
    if _differ(trained, given):
        source = getattr(learner.trainer, "datamodule", None)
        settings = [f"data.{key}" for key in SIZES if hasattr(source, key)] or ["data"]
        remedy = other or f"set {' and '.join(settings)} to what it was trained on"
        raise MetaLearningError(f"{_shapes(trained, given)}: {remedy}")
    if trained.get("ways") not in (None, given["ways"]) and not learner.any_ways:
        remedy = other or f"set data.ways to {trained['ways']}"
        raise MetaLearningError(
            f"data.ways is {given['ways']}, but the checkpoint was trained at {trained['ways']} ways, and "
            f"{type(learner).__name__} has one output for each way: {remedy}, "
            "or train PrototypicalNetworks, MatchingNetworks, NearestNeighbour or FineTuning, which take any number"
        )


def check_same_inputs(trained: dict[str, Any], given: dict[str, Any], training: bool) -> None:
    """Refuse to train weights further on other inputs, and say it where they are only evaluated on these.

    Args:
        trained: what a checkpoint says of its data, see `describe_source`.
        given: the same of the data at hand.
        training: whether a fit goes on.
    """
    if _differ(trained, given) and training:
        raise MetaLearningError(
            f"{_shapes(trained, given)}: a fit goes on with its own data, so set data to what it was trained on"
        )
    if _differ(trained, given):
        rank_zero_warn(f"{_shapes(trained, given)}, which the network takes, too")


def _differ(trained: dict[str, Any], given: dict[str, Any]) -> bool:
    """Whether the shapes of the inputs are known and others."""
    return bool(trained.get("inputs") and given["inputs"]) and list(trained["inputs"]) != given["inputs"]


def _shapes(trained: dict[str, Any], given: dict[str, Any]) -> str:
    return (
        f"the checkpoint was trained on inputs of shape {tuple(trained['inputs'])}, but {given['data']} gives "
        f"{tuple(given['inputs'])}"
    )


def check_defaults(names: set[str]) -> None:
    """Refuse to put defaults in the place of arguments that a checkpoint could not hold."""
    names = names - {"backbone"}  # which has no default
    if names:
        raise MetaLearningError(
            f"the checkpoint was trained with its own {', '.join(sorted(names))}, which could not be written down: "
            "give the same again, as in load_from_checkpoint(path, backbone=..., inner=...)"
        )


def check_length(planned: int, steps: int) -> None:
    """Refuse to go on with a schedule that was made for a run of another length."""
    if planned != steps:
        raise MetaLearningError(
            f"trainer.max_steps is {steps}, but the checkpoint's schedule was made for {planned} meta-steps: "
            f"set trainer.max_steps to {planned}, or model.lr_scheduler to null"
        )
