"""What the page asks of its checkpoints: to tell drawings apart, and to go through points."""

import difflib
import hashlib
import threading
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_meta.data.files.pictures import Preprocessing, open_picture
from lightning_meta.demo.cache import Cache
from lightning_meta.demo.descriptions import describe, preprocessing_of
from lightning_meta.demo.drawing import draw_like_omniglot
from lightning_meta.demo.guard import RefusedError
from lightning_meta.demo.requests import FitRequest, LabelledPictures, Picture
from lightning_meta.errors import MetaLearningError
from lightning_meta.learner import MetaLearner
from lightning_meta.learner.adapted import AdaptedLearner

JOINT = "sinusoid_joint"  # the network that was trained on all curves at once, shown beside those that meta-learned
GRID = 101  # x values of a curve
MAX_PIXELS = 25_000_000  # of a picture: 75 MB of colours
CACHED_TASKS = 320 * 2**20  # bytes of weights after every step: sixty tasks of ten steps on Omniglot's usual network
CACHED_PICTURES = 32 * 2**20  # bytes of pixels


class Pixels(NamedTuple):
    """A picture as a checkpoint sees it."""

    values: Tensor  # uint8 (channels, side, side)
    turned_round: bool  # light on dark where the checkpoint knows dark on light, or the opposite


class Task(NamedTuple):
    """What was learned from labelled pictures."""

    adapted: AdaptedLearner
    support_accuracy: list[float]  # before adaptation and after every inner step
    support: list[Pixels]
    bytes: int


class Answers:
    """Answers from checkpoints; any thread may ask.

    Args:
        checkpoints: trained learners by the names that the page shows.
        about: what the file of each says of itself, see `describe`.

    Raises:
        MetaLearningError: one of them takes neither pictures nor points of a curve.
    """

    def __init__(self, checkpoints: Mapping[str, MetaLearner], about: Mapping[str, Mapping[str, Any]]) -> None:
        self.checkpoints = dict(checkpoints)
        self.descriptions = [describe(name, learner, about.get(name, {})) for name, learner in checkpoints.items()]
        self._kinds: dict[str, str] = {description["name"]: description["kind"] for description in self.descriptions}
        self._locks = {name: threading.Lock() for name in checkpoints}  # running at other weights changes a network
        self._tasks: Cache[Task] = Cache(CACHED_TASKS, lambda task: task.bytes)
        self._pixels: Cache[Pixels] = Cache(CACHED_PICTURES, lambda pixels: pixels.values.nbytes)

    def learn(self, name: str, classes: Sequence[LabelledPictures]) -> Task:
        """Adapt a checkpoint to labelled pictures, or find that it was.

        Raises:
            MetaLearningError: a file is not a picture, or the adaptation diverged.
            RefusedError: there is no such checkpoint, or it takes no pictures.
        """
        learner, preprocessing = self._find(name, "pictures"), self._preprocessing(name)
        support = [
            self._read(picture, preprocessing, f"picture {place} of {labelled.name}")
            for labelled in classes
            for place, picture in enumerate(labelled.pictures, 1)
        ]
        labels = torch.arange(len(classes)).repeat_interleave(
            torch.tensor([len(labelled.pictures) for labelled in classes])
        )
        pixels = torch.stack([picture.values for picture in support])

        def adapt() -> Task:
            with self._locks[name]:
                adapted = learner.adapt_to(preprocessing.inputs(pixels), labels, every_step=True)
                steps = adapted.support_steps()
            correct = (steps.argmax(-1) == labels).double().mean(-1)
            weights = sum(parameter.nbytes for parameter in adapted.parameters())
            return Task(adapted, _rounded(correct), support, weights * (len(steps) + 1))

        return self._tasks.get((name, _digest(pixels.numpy().tobytes()), tuple(labels.tolist())), adapt)

    def classify(self, name: str, task: Task, queries: Sequence[Picture], first: int) -> tuple[list[Any], list[Pixels]]:
        """Probabilities [step][query][class], and the queries as the checkpoint sees them.

        Args:
            name: of the checkpoint.
            task: what `learn` gave.
            queries: at least one picture.
            first: number of the first of them, for messages.

        Raises:
            MetaLearningError: a file is not a picture, or what was learned is of no use.
        """
        preprocessing = self._preprocessing(name)
        seen = [
            self._read(picture, preprocessing, f"picture {place} to classify")
            for place, picture in enumerate(queries, first)
        ]
        with self._locks[name], torch.no_grad():
            outputs = task.adapted.steps(preprocessing.inputs(torch.stack([picture.values for picture in seen])))
        return _rounded(outputs.softmax(-1)), seen

    def fit(self, request: FitRequest) -> dict[str, Any]:
        """The curves of a checkpoint, and of the jointly trained network, before adaptation and after every step.

        Raises:
            MetaLearningError: the adaptation diverged.
            RefusedError: there is no such checkpoint, or it takes no points.
        """
        self._find(request.checkpoint, "curve")
        answer: dict[str, Any] = {"x": _rounded(torch.linspace(-5, 5, GRID))}
        answer["steps"] = self._curves(request.checkpoint, request.points)
        if JOINT in self.checkpoints:
            answer["joint"] = self._curves(JOINT, request.points)
        return answer

    def notes(self, task: Task, queries: Sequence[Pixels]) -> list[str]:
        """What a person should know of an answer."""
        notes = []
        turned, every = sum(picture.turned_round for picture in (*task.support, *queries)), len(task.support)
        if turned:
            notes.append(
                f"{turned} of {every + len(queries)} pictures {'is' if turned == 1 else 'are'} light on dark where the "
                "checkpoint was trained on dark on light, or the opposite: turned round"
            )
        if task.adapted.head == "prototypes":
            notes.append("more classes than the checkpoint was trained for: compared with the mean features of each")
        return notes

    def _curves(self, name: str, points: Sequence[tuple[float, float]]) -> list[Any]:
        x, y = torch.tensor(points, dtype=torch.float32).T[..., None]
        with self._locks[name], torch.no_grad():
            adapted = self.checkpoints[name].adapt_to(x, y, together=True, every_step=True)
            return _rounded(adapted.steps(torch.linspace(-5, 5, GRID)[:, None])[..., 0])

    def _find(self, name: str, kind: str) -> MetaLearner:
        if self._kinds.get(name) == kind:
            return self.checkpoints[name]
        if name in self._kinds:
            raise RefusedError(422, f"{name} is for {'points of a curve' if kind == 'pictures' else 'pictures'}.")
        near = difflib.get_close_matches(name, self._kinds, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(self._kinds)}"
        raise RefusedError(404, f"There is no checkpoint {name}: {hint}")

    def _preprocessing(self, name: str) -> Preprocessing:
        preprocessing = preprocessing_of(self.checkpoints[name])
        assert preprocessing is not None
        return preprocessing

    def _read(self, picture: Picture, preprocessing: Preprocessing, name: str) -> Pixels:
        def read() -> Pixels:
            if picture.strokes is not None:
                image = draw_like_omniglot(picture.strokes)
            else:
                assert picture.file is not None
                image = open_picture(b64decode(picture.file), name, MAX_PIXELS)
            return Pixels(torch.from_numpy(preprocessing.pixels(image)), preprocessing.is_reversed(image))

        content = repr(picture.strokes) if picture.file is None else picture.file
        return self._pixels.get((_digest(content.encode()), preprocessing), read)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _rounded(values: Tensor) -> Any:
    """Nested lists of six decimals.

    Raises:
        MetaLearningError: a value is not finite.
    """
    if not values.isfinite().all():
        raise MetaLearningError("the checkpoint's outputs are not finite after these examples: give it others")
    return values.double().mul(1e6).round().div(1e6).tolist()
