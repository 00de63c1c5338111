"""Characters of an invented alphabet, drawn by the program: few-shot classification without a download."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_meta.data.drawing.data_module import check_at_least
from lightning_meta.data.drawing.images import ClassImages, ImageEpisodes
from lightning_meta.data.drawing.task_random import TaskRandom
from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.episode import Split

_SIZE = 28  # pixels of a side
_STROKES = 3  # most strokes of a character
_SEGMENTS = 40  # straight pieces of a stroke
_DRAWINGS_AT_ONCE = 256  # bounds the memory


@dataclass(kw_only=True, eq=False)
class GlyphEpisodes(ImageEpisodes):
    """Few-shot classification of characters that are drawn on first use, so that no data are needed.

    A class is one to three random cubic Bezier strokes. A drawing of it moves the strokes' control points, turns,
    shears, scales and shifts the whole, and has a stroke width of its own. Images are uint8 (1, 28, 28), ink 255 on 0.

    Args:
        train_classes: classes to train on; the other splits do not depend on their number.
        validation_classes: classes to validate on.
        test_classes: classes to test on.
        drawings: drawings of each class.
        alphabet: seed of the classes and their drawings, which are the same for every ``seed``.

    Raises:
        MetaLearningError: a number is too small.
    """

    train_classes: int = 1600
    validation_classes: int = 200
    test_classes: int = 400
    drawings: int = 20
    alphabet: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, train_classes=self.train_classes, drawings=self.drawings)
        check_at_least(0, validation_classes=self.validation_classes, test_classes=self.test_classes)
        check_at_least(0, alphabet=self.alphabet)

    @property
    def preprocessing(self) -> Preprocessing:
        """Drawings on dark ground stay what they are, at a smaller size."""
        return Preprocessing(side=_SIZE, channels=1, resample="lanczos", background=0.0)

    def more_classes(self, split: Split) -> str:
        """How to get more classes in this split (for error messages)."""
        return f"raise data.{split}_classes"

    def load(self) -> ClassImages:
        """Draw all characters; a few seconds."""
        sizes: dict[Split, int] = {
            "test": self.test_classes,
            "validation": self.validation_classes,
            "train": self.train_classes,
        }
        classes = torch.arange(sum(sizes.values()))
        per_chunk = max(_DRAWINGS_AT_ONCE // self.drawings, 1)
        images = torch.cat([_draw(self.alphabet, chunk, self.drawings) for chunk in classes.split(per_chunk)])
        splits = dict(zip(sizes, classes.split(list(sizes.values())), strict=True))
        return ClassImages(images, classes * self.drawings, torch.full_like(classes, self.drawings), splits)


def _draw(alphabet: int, classes: Tensor, drawings: int) -> Tensor:
    """All drawings of these classes, uint8 (classes * drawings, 1, 28, 28), class by class."""
    numbers = (classes[:, None] * drawings + torch.arange(drawings)).flatten()
    random = TaskRandom(alphabet, "glyph drawings", numbers)
    control, inked = (tensor.repeat_interleave(drawings, 0) for tensor in _characters(alphabet, classes))
    points = _curves(control + _noise(random, 0.16, _STROKES, 4, 2)) @ _affine(random).mT[:, None]
    points = points + _noise(random, 0.15, 1, 1, 2)
    return _render(points, inked, random.uniform(0.6, 1.1, 1, 1))


def _characters(alphabet: int, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Control points of the classes' strokes, (classes, strokes, 4, 2), filling [-1, 1]^2, and which strokes exist."""
    random = TaskRandom(alphabet, "glyph classes", classes)
    control = random.uniform(-1, 1, _STROKES, 4, 2)
    inked = torch.arange(_STROKES) <= random.integers(_STROKES, 1)  # (classes, strokes)
    joined = random.integers(2, _STROKES, 1) == 0
    for stroke in range(1, _STROKES):  # connected characters: a stroke often starts where the previous one ended
        control[:, stroke, 0] = torch.where(joined[:, stroke], control[:, stroke - 1, 3], control[:, stroke, 0])
    control = control.where(inked[..., None, None], control[:, :1])  # a stroke that is not drawn must not widen the box
    points = _curves(control).flatten(1, 2)
    low, high = points.amin(1), points.amax(1)
    centre, reach = (low + high) / 2, (high - low).amax(-1, keepdim=True) / 2
    return (control - centre[:, None, None]) / reach[:, None, None], inked


def _curves(control: Tensor) -> Tensor:
    """Points along cubic Bezier curves: (..., 4, 2) to (..., segments + 1, 2)."""
    angles = torch.linspace(0, torch.pi, _SEGMENTS + 1, dtype=torch.float32)
    t = (1 - angles.cos()) / 2  # dense at the ends, where these curves run fastest
    basis = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], -1)
    return basis @ control


def _affine(random: TaskRandom) -> Tensor:
    """Small random rotations (radians) times shears and scales, (drawings, 2, 2)."""
    turn = _noise(random, 0.25)
    rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], -1).view(-1, 2, 2)
    return rotation @ (0.9 * torch.eye(2, dtype=torch.float32) + _noise(random, 0.18, 2, 2))


def _noise(random: TaskRandom, spread: float, *shape: int) -> Tensor:
    return random.uniform(-spread, spread, *shape)


def _render(points: Tensor, inked: Tensor, width: Tensor) -> Tensor:
    """Ink along the strokes: (drawings, strokes, segments + 1, 2) in [-1, 1] to uint8 (drawings, 1, 28, 28)."""
    pixels = torch.arange(_SIZE, dtype=torch.float32) - (_SIZE - 1) / 2
    points = points * (_SIZE / 2 - 3)
    middles = ((points[..., 1:, :] + points[..., :-1, :]) / 2).flatten(1, 2)  # (D, P, 2)
    lengths = (points[..., 1:, :] - points[..., :-1, :]).norm(dim=-1) * inked[..., None]
    pens = torch.exp(-1.5 * (middles[..., None] - pixels) ** 2)  # (D, P, 2, 28): a Gaussian pen, a factor an axis
    ink = (pens[:, :, 1] * lengths.flatten(1)[..., None]).mT @ pens[:, :, 0]  # (D, 28, 28)
    return ((ink * width - 0.35) * 2).clamp(0, 1).mul(255).round().to(torch.uint8)[:, None]
