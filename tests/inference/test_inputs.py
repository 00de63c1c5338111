"""Layouts and types that an estimator of scikit-learn is given: one result for all, or the remedy that fits."""

import enum
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_meta import FewShotClassifier, FewShotRegressor
from lightning_meta.algorithms import MAML, PrototypicalNetworks
from lightning_meta.errors import MetaLearningError
from lightning_meta.inner import SGD, InnerLoop

NAME = "omniglot_maml_5w1s"
LABELS = np.repeat(["a", "b", "c"], 2)
PICTURES = np.random.default_rng(0).random((6, 28, 28), np.float32)
LARGE = 2**24 + 1  # the first whole number that float32 does not hold


class Words(nn.Module):
    """A score for token ids, of which the largest stands for an entry of its own."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(6, 4), nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(torch.where(x >= LARGE, 5, x.clamp(max=4))).mean(1))


TOKENS = np.array([[0, LARGE], [LARGE, 0], [1, 2], [2, 1], [3, 4], [4, 3]])


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint32, list, torch.tensor])
def test_token_ids_reach_an_embedding_unchanged(kind: Any) -> None:
    learner = PrototypicalNetworks(Words(3), compile=False)
    x = TOKENS.tolist() if kind is list else kind(TOKENS)
    classifier = FewShotClassifier(learner).fit(x, LABELS)
    assert classifier.adapted_.support_x.dtype == torch.int64
    assert np.array_equal(classifier.adapted_.support_x.numpy(), TOKENS)
    with torch.no_grad():
        expected = learner.adapt_to(torch.from_numpy(TOKENS), LABELS)(torch.from_numpy(TOKENS)).softmax(1).numpy()
    np.testing.assert_allclose(classifier.predict_proba(x), expected, rtol=1e-6)
    assert classifier.predict(x).tolist() == LABELS.tolist()


def test_token_ids_that_are_floats_are_refused() -> None:
    learner = PrototypicalNetworks(Words(3), compile=False)
    with pytest.raises(MetaLearningError, match="Give token ids as integers"):
        FewShotClassifier(learner).fit(TOKENS.astype(float), LABELS)
    with pytest.raises(MetaLearningError, match="is given floats: give token ids as integers"):
        FewShotClassifier(learner).fit(TOKENS, LABELS).predict(TOKENS.astype(float))


def test_a_regression_of_token_ids() -> None:
    loop = InnerLoop(SGD(lr=0.1), evaluation_steps=50)
    learner = MAML(Words(1), loop, loss=nn.functional.mse_loss, compile=False)
    regressor = FewShotRegressor(learner).fit(TOKENS, [1.0, 1, -1, -1, 0, 0])
    assert regressor.score(TOKENS, [1.0, 1, -1, -1, 0, 0]) > 0.9


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.float64, np.float16, bool])
def test_other_numbers_are_floats_of_a_network_without_embedding(kind: Any) -> None:
    x = np.array([[0, 1], [1, 0], [1, 1], [0, 0]])
    learner = PrototypicalNetworks(nn.Linear(2, 2), compile=False)
    classifier = FewShotClassifier(learner).fit(x.astype(kind), list("abcd"))
    assert classifier.adapted_.support_x.dtype == torch.float32
    expected = FewShotClassifier(learner).fit(x.astype(np.float32), list("abcd"))
    np.testing.assert_array_equal(classifier.predict_proba(x.astype(kind)), expected.predict_proba(x))


LAYOUTS = {
    "without channels": PICTURES,
    "channels first": PICTURES[:, None],
    "channels last": PICTURES[..., None],
    "lines": PICTURES.reshape(6, -1),
    "double": PICTURES.astype(float),
    "tensor": torch.from_numpy(PICTURES),
    "list": PICTURES.tolist(),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_all_layouts_of_arrays_are_one(case: str) -> None:
    expected = FewShotClassifier(NAME, steps=1).fit(PICTURES[:, None], LABELS).predict_proba(PICTURES[:, None])
    found = FewShotClassifier(NAME, steps=1).fit(LAYOUTS[case], LABELS).predict_proba(LAYOUTS[case])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


REFUSED: dict[str, Any] = {
    "pixels": (PICTURES * 255, LABELS, "but the learner was trained on pixels in 0..1: give pictures as uint8, or div"),
    "whole pixels": ((PICTURES * 255).astype(int), LABELS, "but the learner was trained on pixels in 0..1"),
    "size": (PICTURES[:, :20, :20], LABELS, r"shape \(6, 20, 20\), but the learner was trained on \(rows, 1, 28, 28\)"),
    "channels": (
        np.stack([PICTURES] * 3, 1),
        LABELS,
        r"shape \(6, 3, 28, 28\), but the learner was trained on",
    ),
    "one-hot": (PICTURES, np.eye(3)[[0, 0, 1, 1, 2, 2]], r"is one-hot, expected one class .* y.argmax\(1\)"),
    "one-hot integers": (PICTURES, np.eye(3, dtype=int)[[0, 0, 1, 1, 2, 2]], r"is one-hot, expected one class"),
    "one-hot of pictures": ((PICTURES * 255).astype(np.uint8), np.eye(3)[[0, 0, 1, 1, 2, 2]], "is one-hot, expected"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_says_what_to_do(case: str) -> None:
    x, y, said = REFUSED[case]
    with pytest.raises((MetaLearningError, ValueError), match=said):
        FewShotClassifier(NAME).fit(x, y)


def test_a_query_of_another_size_is_refused() -> None:
    classifier = FewShotClassifier(NAME, steps=1).fit(PICTURES, LABELS)
    with pytest.raises((MetaLearningError, ValueError), match="trained on|features"):
        classifier.predict(PICTURES[:, :20, :20])


TENSORS: dict[str, Any] = {
    "bfloat16": torch.bfloat16,
    "float8": torch.float8_e4m3fn,
    "float64 with a gradient": torch.float64,
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_of_every_float_type_are_their_values(case: str) -> None:
    learner = PrototypicalNetworks(nn.Linear(4, 3), compile=False)
    x = (torch.arange(24).reshape(6, 4) % 5 - 2).float()
    given = x.to(TENSORS[case]).requires_grad_("gradient" in case)
    for rows in (given, list(given)):
        classifier = FewShotClassifier(learner).fit(rows, LABELS)
        assert torch.equal(classifier.adapted_.support_x, x)
        assert len(classifier.predict(rows)) == 6


def test_labels_that_are_objects() -> None:
    learner = PrototypicalNetworks(nn.Linear(4, 3), compile=False)
    x, whole = np.random.default_rng(0).random((6, 4), np.float32), [np.int64(place // 2) for place in range(6)]
    assert FewShotClassifier(learner).fit(x, np.array(whole, dtype=object)).classes_.tolist() == [0, 1, 2]
    for labels in ([2**70 + place for place in whole], ["a", "a", None, "b", "b", "b"]):
        with pytest.raises(ValueError, match="^y holds objects .*, expected integers of 64 bits or strings"):
            FewShotClassifier(learner).fit(x, labels)


class Tree(str, enum.Enum):
    """Labels whose text, cut to the length of their values, is the same for all."""

    ASH, ELM = "a", "e"


@pytest.mark.parametrize("labels", [["a", "a\0"], list(Tree)])
@pytest.mark.parametrize("form", [list, tuple, lambda labels: np.array([*labels, None], object)[:-1]])
def test_strings_that_differ_are_different_classes(labels: list[str], form: Any) -> None:
    learner = PrototypicalNetworks(nn.Linear(4, 3), compile=False)
    x, y = np.eye(4, dtype=np.float32), form(labels * 2)
    x[2:] = x[:2]
    classifier = FewShotClassifier(learner).fit(x, y)
    assert classifier.classes_.tolist() == [str.__str__(label) for label in labels]
    assert all(type(label) is str for label in classifier.classes_.tolist())
    assert classifier.score(x, y) == 1


def test_targets_beyond_float32_are_refused() -> None:
    learner = MAML(nn.Linear(4, 1), InnerLoop(SGD(lr=0.1)), loss=nn.functional.mse_loss, compile=False)
    with pytest.raises(ValueError, match="y holds values that float32 does not hold: scale the targets"):
        FewShotRegressor(learner).fit(np.zeros((2, 4)), [1.0, 1e39])
