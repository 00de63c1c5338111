"""Layouts and types of arrays and of their labels, through a whole fit: right, or the remedy that fits."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_meta.algorithms import MAML, PrototypicalNetworks
from lightning_meta.backbones import MLP, Conv4
from lightning_meta.data import ArrayEpisodes
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import InnerLoop
from tests.helpers import trainer

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (40, 3, 16, 16), np.uint8)
TOKENS = GENERATOR.integers(0, 30, (40, 7))
CLASSES = np.arange(10).repeat(4)


class Words(nn.Module):
    """The mean of what an embedding makes of token ids."""

    def __init__(self, entries: int = 30, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(entries, 4), nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x).mean(1))


def conv(channels: int) -> nn.Module:
    return Conv4(3, channels=channels, filters=2, image_size=16)


def fit(x: Any, network: nn.Module, path: Path, y: Any = CLASSES) -> MAML:
    data = ArrayEpisodes(x=x, y=y, ways=3, validation_classes=0, test_classes=4, meta_batch_size=2, validation_tasks=0)
    learner = MAML(network, InnerLoop(steps=1, evaluation_steps=1), compile=False, task_chunk=2)
    trainer(path, max_steps=1).fit(learner, data)
    return learner


TAKEN: dict[str, Any] = {
    "bytes": (PIXELS, lambda: conv(3)),
    "floats": (PIXELS / 255, lambda: conv(3)),
    "booleans": (PIXELS > 100, lambda: conv(3)),
    "without channels, given one": (PIXELS[:, :1, 0][:, None], lambda: MLP(3, 16, hidden=[4])),
    "channels last, put first": (np.moveaxis(np.moveaxis(PIXELS, 1, -1), -1, 1), lambda: conv(3)),
    "token ids": (TOKENS, Words),
    "short token ids": (TOKENS.astype(np.int16), Words),
    "unsigned token ids": (TOKENS.astype(np.uint32), Words),
}


@pytest.mark.parametrize("case", TAKEN)
def test_layouts_that_fit_are_trained_on(case: str, tmp_path: Path) -> None:
    x, network = TAKEN[case]
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learner = fit(x, model, tmp_path)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in learner.backbone.state_dict().items())


REFUSED: dict[str, Any] = {
    "without channels": (PIXELS[:, 0], lambda: conv(1), "give them a channel, as with data.x[:, None]"),
    "channels last": (np.moveaxis(PIXELS, 1, -1), lambda: conv(3), "as with numpy.moveaxis(data.x, -1, 1)"),
    "other channels": (PIXELS, lambda: conv(1), "Set the backbone's channels, image size or inputs to match"),
    "other width": (PIXELS.reshape(40, -1), lambda: MLP(3, 5), "Set the backbone's channels, image size or inputs"),
    "whole numbers as pixels": (PIXELS.astype(np.int64), lambda: conv(3), "give pixels as uint8, and other numbers as"),
    "token ids as floats": (TOKENS.astype(float), Words, "Give token ids as integers, as with data.x.astype('int64')"),
    "token ids as bytes": (
        TOKENS.astype(np.uint8),
        Words,
        "Give token ids as integers, as with data.x.astype('int64')",
    ),
    "too large a token id": (
        TOKENS,
        lambda: Words(12),
        f"as there are token ids, the largest being {TOKENS[:8].max()}",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_layouts_that_do_not_fit_say_what_to_do(case: str, tmp_path: Path) -> None:
    x, network, said = REFUSED[case]
    with pytest.raises(MetaLearningError) as error:
        fit(x, network(), tmp_path)
    assert "cannot take inputs of shape" in str(error.value)
    assert said.partition(", the largest")[0] in str(error.value) and len(str(error.value).splitlines()) <= 3


def test_floats_that_look_like_pixels_are_warned_of() -> None:
    def load(x: Any) -> None:
        ArrayEpisodes(x=x, y=CLASSES, ways=3, validation_classes=0, test_classes=4).load()

    with pytest.warns(UserWarning, match=r"holds floats in 0..255, used unchanged: if they are pixels, give x.astype"):
        load(PIXELS.astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (PIXELS, PIXELS / 255, PIXELS.astype(float) - 128, PIXELS.reshape(40, -1).astype(float)):
            load(x)


LABELS: dict[str, Any] = {
    "whole floats": (CLASSES.astype(float), "convert it, as with y.astype('int64')"),
    "real": (CLASSES + 0.5, "real values are targets of a regression"),
    "missing": (np.where(CLASSES == 3, np.nan, CLASSES), "4 labels are missing (NaN)"),
    "one-hot": (np.eye(10, dtype=int)[CLASSES], "these are one-hot, so give y.argmax(1)"),
    "one-hot floats": (np.eye(10)[CLASSES], "these are one-hot, so give y.argmax(1)"),
    "a column": (CLASSES[:, None], "give y[:, 0]"),
    "mixed": (np.array(["a", 1] * 20, dtype=object), "convert it, as with y.astype('str')"),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_of_other_kinds_say_what_to_do(case: str) -> None:
    y, said = LABELS[case]
    with pytest.raises(MetaLearningError) as error:
        ArrayEpisodes(x=PIXELS, y=y, ways=3, validation_classes=0, test_classes=4).load()
    assert said in str(error.value)


@pytest.mark.parametrize(
    "y", [CLASSES.astype(bool), CLASSES.astype(np.uint8), CLASSES.astype(str), CLASSES.astype("S2"), CLASSES - 5]
)
def test_labels_of_every_discrete_kind_are_taken(y: Any) -> None:
    splits = ArrayEpisodes(x=PIXELS, y=y, ways=1 + 1, validation_classes=0, test_classes=0, test_tasks=0).load().splits
    assert len(splits["train"]) == len(np.unique(y))


def test_an_adapted_network_looks_up_the_rows_of_token_ids(tmp_path: Path) -> None:
    learner = fit(TOKENS, Words(), tmp_path)
    x = torch.from_numpy(TOKENS[:6])
    adapted = learner.adapt_to(x, [0, 0, 1, 1, 2, 2], steps=0)
    with torch.no_grad():
        # The mapped product over tasks and the plain one may round the last bit differently.
        torch.testing.assert_close(adapted(x), learner.backbone(x), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(adapted(x.int()), adapted(x), rtol=0, atol=0)
    with pytest.raises(MetaLearningError, match="is given floats: give token ids as integers"):
        adapted(x.float())
    with pytest.raises(MetaLearningError, match="cannot take inputs of shape .* Give token ids as integers"):
        learner.adapt_to(x.float(), [0, 0, 1, 1, 2, 2])


class Places(nn.Module):
    """A network of floats in which an embedding stands for places, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.places, self.head = nn.Embedding(7, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x[..., None] * self.places(torch.arange(7))).mean(1))


def test_an_embedding_of_places_leaves_floats_as_they_are() -> None:
    learner = PrototypicalNetworks(Places(), compile=False)
    x = torch.rand(6, 7)
    adapted = learner.adapt_to(x, [0, 0, 1, 1, 2, 2])
    assert torch.equal(adapted.support_x, x)
    assert adapted(x).std(0).min() > 0


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (torch.from_numpy(PIXELS[:6]), [0, 0, 1, 1, 2, 2], "the examples are uint8, which training scales to 0..1"),
        (torch.rand(6, 3, 16, 16), torch.eye(3, dtype=torch.long)[[0, 0, 1, 1, 2, 2]], "give labels.argmax"),
    ],
)
def test_what_adaptation_cannot_take_says_what_to_do(x: Tensor, y: Any, said: str) -> None:
    learner = MAML(conv(3), InnerLoop(steps=1, evaluation_steps=1), compile=False)
    with pytest.raises(MetaLearningError, match=said):
        learner.adapt_to(x, y)
    with pytest.raises(MetaLearningError, match="the examples are uint8"):
        learner.adapt_to(torch.rand(6, 3, 16, 16), [0, 0, 1, 1, 2, 2])(torch.from_numpy(PIXELS[:6]))
