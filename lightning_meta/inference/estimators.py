"""Few-shot learners as estimators of scikit-learn: fit on a handful of labelled examples, predict the rest."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from lightning_meta.data.arrays import arrays_of_tensors, tensor_to_array
from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.data.labels import array_of_labels, plain_labels
from lightning_meta.errors import MetaLearningError
from lightning_meta.inference.loading import load_learner
from lightning_meta.inference.pictures import are_pictures, class_folders, picture_files, read_pictures
from lightning_meta.learner import MetaLearner
from lightning_meta.learner.adapted import AdaptedLearner

WHOLE = (np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint32, np.uint16)  # which an nn.Embedding takes
TYPES = [np.float32, *WHOLE]  # that examples may have; all others become the first
AT_ONCE = 256  # rows that are predicted together where each is seen alone, which bounds the memory


class _FewShotEstimator(BaseEstimator):
    """What classifier and regressor share: loading the learner, and reading what is to be learned from."""

    learner_: MetaLearner
    adapted_: AdaptedLearner

    def __init__(self, learner: str | Path | MetaLearner, *, steps: int | None = None, together: bool = False) -> None:
        self.learner = learner
        self.steps = steps
        self.together = together

    def _load(self) -> None:
        given = self.learner
        self.learner_ = copy.deepcopy(given) if isinstance(given, MetaLearner) else load_learner(given)
        self.notes_: list[str] = []

    def _inputs(self, X: Any, reset: bool) -> Tensor:  # noqa: N803
        """Inputs of the network, (rows, ...)."""
        plain = self.learner_.trained_on.get("preprocessing")
        if isinstance(X, str | Path):
            X = picture_files(Path(X).expanduser())  # noqa: N806
        if are_pictures(X):
            if plain is None:
                raise MetaLearningError(
                    f"{type(self).__name__} was given pictures, but its learner does not say how a picture becomes an "
                    "input: give arrays of floats, prepared as in training"
                )
            x, notes = read_pictures(X, Preprocessing.from_plain(plain))
            self.notes_ += notes
            return x
        X = validate_data(self, _as_array("X", X), reset=reset, dtype=TYPES, allow_nd=True)  # noqa: N806
        x = torch.from_numpy(np.ascontiguousarray(X if X.dtype == np.float32 else X.astype(np.int64)))
        return x if plain is None else _as_pictures(x, plain["channels"], plain["side"])

    def _outputs(self, X: Any) -> np.ndarray:  # noqa: N803
        check_is_fitted(self)
        x = self._inputs(X, reset=False)
        with torch.no_grad():
            outputs = torch.cat([self.adapted_(rows) for rows in (x.split(AT_ONCE) if not self.together else [x])])
        array: np.ndarray = outputs.double().numpy()
        return array


class FewShotClassifier(ClassifierMixin, _FewShotEstimator):
    """Classify with a meta-learned network that adapts to a few labelled examples, of classes it has never seen.

    Examples are pictures (paths, contents of files, pictures of PIL, uint8 arrays), which become inputs as in the
    learner's training; or arrays of floats, inputs as the network takes them.

    >>> classifier = FewShotClassifier("omniglot_maml_5w1s")
    >>> classifier.get_params()["steps"] is None
    True

    Args:
        learner: name of a checkpoint that comes with the package, path of one, or a learner.
        steps: inner steps; as many as in the learner's evaluation when None.
        together: whether the examples that are predicted at once share their batch statistics ("transductive", the
            papers' protocol); otherwise each is seen alone, as when pictures come one at a time.

    Attributes:
        classes_: the classes in sorted order, of `predict_proba`'s columns.
        adapted_: the adapted network, see `AdaptedLearner`.
        notes_: what was noticed about the pictures, in words.

    Raises:
        MetaLearningError: a picture cannot be read, or inputs, labels and learner do not go together.
    """

    classes_: np.ndarray

    def __init__(
        self,
        learner: str | Path | MetaLearner = "omniglot_maml_5w1s",
        *,
        steps: int | None = None,
        together: bool = False,
    ) -> None:
        super().__init__(learner, steps=steps, together=together)

    def fit(self, X: Any, y: Sequence[Any] | np.ndarray | None = None) -> "FewShotClassifier":  # noqa: N803
        """Adapt to labelled examples.

        Args:
            X: examples; or, without ``y``, a folder with a sub-folder of pictures for each class.
            y: the class of each, strings or integers; at least two different ones.
        """
        self._load()
        if y is None and isinstance(X, str | Path):
            X, y = class_folders(Path(X).expanduser())  # noqa: N806
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: give the class of every "
                "example, or a folder with a sub-folder for each class"
            )
        y = _check_labels(y)
        if not are_pictures(X):
            X, y = validate_data(  # noqa: N806
                self, _as_array("X", X), y, dtype=TYPES, allow_nd=True
            )
        labels = np.asarray(y)
        check_classification_targets(labels)
        self.classes_, places = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs examples of at least two classes, but the data contains only one class: "
                f"{self.classes_[0]!r}"
            )
        x = self._inputs(X, reset=True)
        self.adapted_ = self.learner_.adapt_to(x, places, steps=self.steps, together=self.together)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Probability of every class, (rows, classes), in the order of ``classes_``."""
        outputs = self._outputs(X)
        shifted = np.exp(outputs - outputs.max(1, keepdims=True))
        probabilities: np.ndarray = shifted / shifted.sum(1, keepdims=True)
        return probabilities

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The likeliest class of every row, (rows,)."""
        places = self.predict_proba(X).argmax(1)
        classes: np.ndarray = self.classes_[places]
        return classes

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """Accuracy on examples whose classes are given as in `fit`."""
        return float(super().score(X, _check_labels(y), sample_weight))


class FewShotRegressor(RegressorMixin, _FewShotEstimator):
    """Regress with a meta-learned network that adapts to a few points.

    >>> FewShotRegressor("sinusoid_maml").get_params()["learner"]
    'sinusoid_maml'

    Args:
        learner: name of a checkpoint that comes with the package, path of one, or a learner.
        steps: inner steps; as many as in the learner's evaluation when None.
        together: as in `FewShotClassifier`.

    Attributes:
        adapted_: the adapted network, see `AdaptedLearner`.

    Raises:
        MetaLearningError: inputs, targets and learner do not go together.
    """

    def __init__(
        self, learner: str | Path | MetaLearner = "sinusoid_maml", *, steps: int | None = None, together: bool = False
    ) -> None:
        super().__init__(learner, steps=steps, together=together)

    def fit(self, X: Any, y: Any) -> "FewShotRegressor":  # noqa: N803
        """Adapt to points: inputs (rows, ...) and targets (rows,) or (rows, targets)."""
        self._load()
        y = _as_array("y", y)
        if not are_pictures(X):
            X, y = validate_data(  # noqa: N806
                self, _as_array("X", X), y, dtype=TYPES, allow_nd=True, multi_output=True, y_numeric=True
            )
        with np.errstate(over="ignore"):  # infinities are refused below
            targets = torch.from_numpy(np.asarray(y, np.float32))
        if not targets.isfinite().all():
            raise ValueError("y holds values that float32 does not hold: scale the targets")
        self._one_target = targets.dim() == 1
        self.adapted_ = self.learner_.adapt_to(
            self._inputs(X, reset=True), targets, steps=self.steps, together=self.together
        )
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The targets of every row, (rows,) or (rows, targets) as they were given."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._one_target else outputs


def _as_array(name: str, given: Any) -> Any:
    """Tensors and lists as arrays, which keep whole numbers what they are."""
    if isinstance(given, Tensor):
        return tensor_to_array(name, given)
    return np.asarray(arrays_of_tensors(name, given)) if isinstance(given, list | tuple) else given


def _as_pictures(x: Tensor, channels: int, side: int) -> Tensor:
    """Arrays of a learner that was trained on pictures, (rows, channels, side, side).

    Args:
        x: of that shape, without the axis of a single channel, with channels last, or with each picture in one line, as
            a Pipeline hands them on.
        channels: of a picture in training.
        side: pixels of a side.

    Raises:
        MetaLearningError: they are of another size, or pixels that are not scaled.
    """
    shape = channels, side, side
    if x.shape[1:] == (side, side, channels):
        x = x.movedim(-1, 1)
    elif x.shape[1:] in ((channels * side**2,), (side, side)) and x[0].numel() == channels * side**2:
        x = x.view(len(x), *shape)
    if x.shape[1:] != shape:
        raise MetaLearningError(
            f"the examples have shape {tuple(x.shape)}, but the learner was trained on (rows, {channels}, {side}, "
            f"{side}): give arrays of that shape, or pictures as uint8 or files, which are resized"
        )
    if x.min() >= 0 and 16 < x.max() <= 255:
        raise MetaLearningError(
            f"the examples hold numbers in {x.min():g}..{x.max():g}, but the learner was trained on pixels in 0..1: "
            "give pictures as uint8, or divide by 255"
        )
    return x


def _check_labels(y: Any) -> Any:
    """Classes in a form that scikit-learn takes: those that are objects of Python become integers or strings of NumPy.

    Raises:
        ValueError: they are one-hot, or objects of other or of several kinds.
    """
    y = array_of_labels(arrays_of_tensors("y", y)) if isinstance(y, list | tuple) else _as_array("y", y)
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] > 1 and np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all():
        raise ValueError(f"y has shape {labels.shape} and is one-hot, expected one class for each example: y.argmax(1)")
    if labels.dtype.kind != "O" or labels.ndim != 1:
        return y
    plain = plain_labels(labels)
    if plain.dtype.kind == "O" and {type(label) for label in plain} != {str}:
        kinds = ", ".join(sorted({type(label).__name__ for label in labels}))
        raise ValueError(
            f"y holds objects ({kinds}), expected integers of 64 bits or strings: convert it, as with y.astype('str'), "
            "and leave out examples without a label"
        )
    return plain
