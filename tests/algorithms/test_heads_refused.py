"""Backbones without a linear layer at the end, for all algorithms that treat it apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from lightning_meta.algorithms import (
    ANIL,
    BOIL,
    FineTuning,
    MatchingNetworks,
    MetaLearner,
    NearestNeighbour,
    PrototypicalNetworks,
)
from lightning_meta.errors import MetaLearningError
from tests.algorithms.test_refusals import glyphs, trainer

MAKERS: list[Callable[..., MetaLearner]] = [
    ANIL, BOIL, PrototypicalNetworks, MatchingNetworks,
    lambda backbone, **settings: FineTuning(backbone, 8, **settings),
    lambda backbone, **settings: NearestNeighbour(backbone, 8, **settings),
]  # fmt: skip


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 3), nn.GroupNorm(1, 3))


@pytest.mark.parametrize("settings", [{}, {"task_chunk": 1, "compile": False}])
@pytest.mark.parametrize("make", MAKERS)
def test_a_network_with_another_end_is_refused(make: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    said = "model.backbone Normed ends with GroupNorm at 2, expected a torch.nn.Linear: this algorithm treats"
    with pytest.raises(MetaLearningError, match=said):
        trainer(tmp_path).fit(make(Normed(), **settings), glyphs())
    with pytest.raises(MetaLearningError, match=said):
        trainer(tmp_path).test(make(Normed(), **settings), glyphs(test_tasks=2), verbose=False)
    assert not list(tmp_path.rglob("*.ckpt"))
