"""Estimators of scikit-learn: its own checks, and predictions equal to the learner's."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch import nn
from torch.nn import functional

from lightning_meta import FewShotClassifier, FewShotRegressor, load_learner
from lightning_meta.algorithms import MAML
from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.errors import MetaLearningError
from lightning_meta.inference import read_pictures
from lightning_meta.inner import SGD, InnerLoop
from tests.helpers import glyphs

NAME = "omniglot_maml_5w1s"


class AnyWidth(nn.Module):
    """A network for inputs of any width, as scikit-learn's checks have them: cut or filled to 16 numbers."""

    def __init__(self, outputs: int = 40) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(16, 32), nn.Linear(32, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(functional.pad(x, (0, max(16 - x.shape[1], 0)))[:, :16]).tanh())


def learner(outputs: int, rate: float, **settings: Any) -> MAML:
    # In float64: scikit-learn compares predictions of one row and of many to 1e-7.
    loop = InnerLoop(SGD(lr=rate), evaluation_steps=100)
    return MAML(AnyWidth(outputs), loop, optimizer=torch.optim.Adam, **settings).double()


ESTIMATORS = [
    FewShotClassifier(learner(40, 0.1)),
    FewShotRegressor(learner(1, 0.03, loss=functional.mse_loss)),
]
EXPECTED_TO_FAIL = {
    "check_estimators_overwrite_params": "joblib hashes a tensor and its copy differently",
    "check_regressor_multioutput": "the network of the test has one output",
}
CHECKS = [
    (estimator, check)
    for estimator in ESTIMATORS
    for estimator, check in estimator_checks_generator(estimator, expected_failed_checks=EXPECTED_TO_FAIL, mark="skip")
]
NAMES = [f"{type(estimator).__name__}-{getattr(check, 'func', check).__name__}" for estimator, check in CHECKS]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("estimator", "check"),
    CHECKS,
    ids=NAMES,
)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_an_estimator_leaves_the_learner_that_it_is_given() -> None:
    given = learner(40, 0.1)
    before = {name: value.clone() for name, value in given.state_dict().items()}
    estimator = FewShotClassifier(given).fit(np.random.default_rng(0).normal(size=(6, 4)), list("aabbcc"))
    assert estimator.learner is given
    torch.testing.assert_close(dict(given.state_dict()), before, rtol=0, atol=0)


@pytest.fixture(scope="module")
def pictures() -> tuple[list[Image.Image], np.ndarray]:
    """Four drawings of each of three characters, dark on light as Omniglot's files are."""
    images = 255 - glyphs().data.images[: 3 * 20].view(3, 20, 28, 28)[:, :4].flatten(0, 1).numpy()
    return [Image.fromarray(image) for image in images], np.repeat(["p", "q", "r"], 4)


@pytest.mark.parametrize("together", [False, True])
def test_predictions_are_the_learners(pictures: Any, together: bool) -> None:
    images, labels = pictures
    model = load_learner(NAME)
    x, _ = read_pictures(images, Preprocessing.from_plain(model.trained_on["preprocessing"]))
    adapted = model.adapt_to(x[::2], labels[::2], together=together)
    classifier = FewShotClassifier(NAME, together=together).fit(images[::2], labels[::2])
    probabilities = classifier.predict_proba(images[1::2])
    with torch.no_grad():
        expected = adapted(x[1::2]).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert classifier.classes_.tolist() == ["p", "q", "r"]
    assert (classifier.predict(images[1::2]) == classifier.classes_[expected.argmax(1)]).all()
    assert classifier.score(images[1::2], labels[1::2]) > 0.8


def test_all_forms_of_pictures_are_one(pictures: Any, tmp_path: Path) -> None:
    images, labels = pictures
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / label).mkdir(exist_ok=True)
        image.save(tmp_path / label / f"{number:02}.png")
    (tmp_path / "p" / "notes.txt").write_text("no picture")
    files = sorted(tmp_path.rglob("*.png"))
    forms: list[tuple[Any, Any]] = [
        (images, labels),
        (tmp_path, None),
        (str(tmp_path), None),
        (files, labels),
        ([str(file) for file in files], labels),
        ([file.read_bytes() for file in files], labels),
        ([np.asarray(image) for image in images], labels),
        (np.stack([np.asarray(image) for image in images]), labels),
        (np.stack([np.asarray(image) for image in images])[..., None], labels),
    ]
    results = [FewShotClassifier(NAME, steps=1).fit(x, y).predict_proba(files[:2]) for x, y in forms]
    for result in results:
        np.testing.assert_array_equal(result, results[0])


def test_reversed_drawings_are_noticed(pictures: Any) -> None:
    images, labels = pictures
    light = [Image.fromarray(255 - np.asarray(image)) for image in images]
    classifier = FewShotClassifier(NAME).fit(images, labels)
    assert classifier.notes_ == []
    expected = classifier.predict_proba(images)
    np.testing.assert_allclose(classifier.predict_proba(light), expected)
    assert classifier.notes_ == [
        "12 of 12 pictures are light on dark, where the learner was trained on dark on light: turned round"
    ]


def test_what_scikit_learn_does_with_estimators(pictures: Any) -> None:
    images, labels = pictures
    flat = np.stack([np.asarray(image) for image in images]).reshape(12, -1) / 255
    inverted = FunctionTransformer(lambda x: 1 - x)
    scores = cross_val_score(make_pipeline(inverted, FewShotClassifier(NAME)), flat, labels, cv=2)
    assert scores.mean() > 0.8
    assert clone(FewShotClassifier(NAME, steps=3)).get_params() == {"learner": NAME, "steps": 3, "together": False}
    fitted = FewShotClassifier(NAME, steps=1).fit(images, labels)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(images), fitted.predict_proba(images))


def test_integers_and_floats_as_inputs() -> None:
    x = np.random.default_rng(0).random((6, 1, 28, 28), np.float32)
    classifier = FewShotClassifier(NAME).fit(x, [7, 7, 3, 3, 5, 5])
    assert classifier.classes_.tolist() == [3, 5, 7]
    assert classifier.predict(torch.from_numpy(x)).tolist() == [7, 7, 3, 3, 5, 5]


def test_regression_of_one_target_and_of_several() -> None:
    x = np.linspace(-1, 1, 20)[:, None]
    single = FewShotRegressor(learner(1, 0.1, loss=functional.mse_loss)).fit(x, x[:, 0])
    assert single.predict(x).shape == (20,)
    assert single.score(x, x[:, 0]) > 0.9
    several = FewShotRegressor(learner(2, 0.1, loss=functional.mse_loss)).fit(x, np.hstack([x, -x]))
    assert several.score(x, np.hstack([x, -x])) > 0.9


def test_mistakes(pictures: Any, tmp_path: Path) -> None:
    images, labels = pictures
    with pytest.raises(ValueError, match="at least two classes.*only one class: 'p'"):
        FewShotClassifier(NAME).fit(images[:4], labels[:4])
    with pytest.raises(NotFittedError):
        FewShotClassifier(NAME).predict(images)
    with pytest.raises(MetaLearningError, match="does not say how a picture becomes an input"):
        FewShotClassifier(learner(40, 0.1)).fit(images, labels)
    with pytest.raises(MetaLearningError, match="holds no folders"):
        FewShotClassifier(NAME).fit(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MetaLearningError, match="empty holds no pictures"):
        FewShotClassifier(NAME).fit(tmp_path)
    with pytest.raises(MetaLearningError, match="is not a folder"):
        FewShotClassifier(NAME).fit(tmp_path / "nothing")
    with pytest.raises(MetaLearningError, match=r"12 examples and 3 labels"):
        FewShotClassifier(NAME).fit(images, labels[[0, 4, 8]])
    (tmp_path / "empty" / "a.png").write_text("text")
    (tmp_path / "other").mkdir()
    images[0].save(tmp_path / "other" / "b.png")
    with pytest.raises(MetaLearningError, match=r"a\.png is not a picture"):
        FewShotClassifier(NAME).fit(tmp_path)
