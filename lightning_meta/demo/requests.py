"""What the page may ask, and how a request that is wrong is put into words."""

from base64 import b64decode
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MAX_CLASSES = 20
MAX_SUPPORT = 100  # pictures of all classes
MAX_QUERIES = 100
MAX_STROKES = 200
MAX_POINTS = 5000  # of a picture
MAX_CURVE_POINTS = 100

Name = Annotated[str, Field(min_length=1, max_length=100)]
Coordinate = Annotated[float, Field(ge=-1, le=2, allow_inf_nan=False)]  # in sides of the canvas; a pen may leave it
Point = Annotated[tuple[Coordinate, Coordinate], Field(strict=False)]  # JSON has lists alone
Stroke = Annotated[list[Point], Field(min_length=1, max_length=MAX_POINTS, fail_fast=True)]
CurveX = Annotated[float, Field(ge=-5, le=5, allow_inf_nan=False)]
CurveY = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
CurvePoint = Annotated[tuple[CurveX, CurveY], Field(strict=False)]


class Message(BaseModel):
    """A part of a request: JSON's own types, and nothing that is not asked for."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _decoded(text: str) -> str:
    b64decode(text, validate=True)  # raises a ValueError
    return text


class Picture(Message):
    """A drawing, or the content of a picture file in base64."""

    strokes: Annotated[list[Stroke], Field(min_length=1, max_length=MAX_STROKES, fail_fast=True)] | None = None
    file: Annotated[str, Field(min_length=1), AfterValidator(_decoded)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Picture":
        if (self.strokes is None) == (self.file is None):
            raise ValueError("expected either strokes or a file")
        points = sum(map(len, self.strokes or []))
        if points > MAX_POINTS:
            raise ValueError(f"{points} points, expected at most {MAX_POINTS}")
        return self


class LabelledPictures(Message):
    """A class by its name and examples."""

    name: Annotated[str, Field(max_length=100)]
    pictures: Annotated[list[Picture], Field(min_length=1, max_length=MAX_SUPPORT, fail_fast=True)]


class ClassifyRequest(Message):
    """Which of the classes does each query belong to?"""

    checkpoint: Name
    classes: Annotated[list[LabelledPictures], Field(min_length=2, max_length=MAX_CLASSES, fail_fast=True)]
    queries: Annotated[list[Picture], Field(max_length=MAX_QUERIES, fail_fast=True)]

    @model_validator(mode="after")
    def _check(self) -> "ClassifyRequest":
        pictures = sum(len(labelled.pictures) for labelled in self.classes)
        if pictures > MAX_SUPPORT:
            raise ValueError(f"{pictures} pictures in all classes, expected at most {MAX_SUPPORT}")
        return self


class FitRequest(Message):
    """Which curve goes through these points?"""

    checkpoint: Name
    points: Annotated[list[CurvePoint], Field(min_length=1, max_length=MAX_CURVE_POINTS, fail_fast=True)]


def explain(errors: Sequence[Any]) -> tuple[int, str]:
    """Status and message of what pydantic found first.

    >>> explain([{"type": "missing", "loc": ("body", "classes", 0, "name"), "msg": "Field required"}])
    (422, 'classes[0].name: field required')
    """
    error = errors[0]
    if error["type"] == "json_invalid":
        return 400, "The body is not JSON."
    parts = [part for part in error["loc"] if part not in ("body", "function-after")]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return 422, f"{place}: {message}" if place else message
