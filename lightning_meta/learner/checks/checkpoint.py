"""What is checked of a checkpoint before it is loaded."""

from typing import Any

from torch import Tensor

from lightning_meta.errors import MetaLearningError


def check_checkpoint(
    own: dict[str, Tensor], checkpoint: dict[str, Any], not_plain: set[str], planned: int | None
) -> None:
    """Refuse what does not belong to a learner, before any of it is loaded.

    Args:
        own: the learner's ``state_dict``.
        checkpoint: as Lightning reads it.
        not_plain: arguments of this learner that have no plain form, so that they were given again.
        planned: length of the run that is to go on by a schedule; None where there is none.
    """
    check_tensors(own, checkpoint["state_dict"])
    check_defaults(set(checkpoint["not_plain"]) - not_plain)
    if planned is not None:
        check_length(checkpoint["max_steps"], planned)


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
