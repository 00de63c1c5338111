"""Predictions for a pile of pictures: probabilities, entropy, accuracy where the truth is known, CSV and JSON."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest, entropy
from sklearn.metrics import confusion_matrix

from lightning_meta.escaping import cell, printable

SCREEN_ROWS = 20
SCREEN_CLASSES = 10  # of a confusion matrix


class Accuracy(NamedTuple):
    """Right predictions among pictures whose class is known."""

    right: int
    known: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """In 0..1."""
        return self.right / self.known

    def __str__(self) -> str:
        return (
            f"accuracy {100 * self.share:.1f} % ({self.right} of {self.known} pictures; "
            f"95 % interval {100 * self.low:.1f} to {100 * self.high:.1f} %, Wilson)"
        )


@dataclass(frozen=True)
class Predictions:
    """What was predicted for each picture.

    Args:
        files: of the pictures.
        truth: the class of each where it is known, else None.
        classes: that were learned.
        probabilities: of every class, (files, classes).
        about: how they came about, for JSON: plain data.
    """

    files: Sequence[str]
    truth: Sequence[str | None]
    classes: Sequence[str]
    probabilities: np.ndarray
    about: dict[str, Any]

    @cached_property
    def predicted(self) -> list[str]:
        """The likeliest class of each picture."""
        return [self.classes[place] for place in self.probabilities.argmax(1)]

    @cached_property
    def entropy(self) -> np.ndarray:
        """Of each picture's probabilities in bits, (files,): 0 where one class is certain, log2(classes) at most."""
        bits: np.ndarray = entropy(self.probabilities, base=2, axis=1)
        return bits

    @cached_property
    def accuracy(self) -> Accuracy | None:
        """Of the pictures whose class is known, with the interval of E. B. Wilson (1927); None without such pictures.

        The interval takes the pictures as independent, and the examples to learn from as given: with other examples of
        the same classes, the accuracy may be another.
        """
        pairs = self._known
        if not pairs:
            return None
        right = sum(truth == predicted for truth, predicted in pairs)
        low, high = binomtest(right, len(pairs)).proportion_ci(0.95, method="wilson")
        return Accuracy(right, len(pairs), float(low), float(high))

    @cached_property
    def confusion(self) -> np.ndarray | None:
        """Pictures by true class (rows) and predicted class (columns), (classes, classes); None without truth."""
        if not self._known:
            return None
        truth, predicted = zip(*self._known, strict=True)
        counts: np.ndarray = confusion_matrix(truth, predicted, labels=list(self.classes))
        return counts

    @property
    def _known(self) -> list[tuple[str, str]]:
        pairs = zip(self.truth, self.predicted, strict=True)
        return [(truth, predicted) for truth, predicted in pairs if truth is not None]

    def csv(self) -> str:
        """A row for each picture; a column ``true_class`` only where a truth is known.

        A name that a spreadsheet would compute begins with an apostrophe; `json` has every name as it is.
        """
        truth = ["true_class"] if self._known else []
        stream = io.StringIO()
        writer = csv.writer(stream)
        names = [printable(f"p({name})") for name in self.classes]
        writer.writerow(["file", "class", "probability", "entropy_bits", *names, *truth])
        for row, file in enumerate(self.files):
            p = self.probabilities[row]
            numbers = [f"{value:.6g}" for value in (p.max(), self.entropy[row], *p)]
            known = [self.truth[row] or ""] if truth else []
            writer.writerow([cell(file), cell(self.predicted[row]), *numbers, *map(cell, known)])
        return stream.getvalue()

    def json(self) -> str:
        """How the predictions came about, accuracy and confusion where truth is known, and every picture."""
        accuracy = self.accuracy and {
            "right": self.accuracy.right,
            "pictures": self.accuracy.known,
            "mean": self.accuracy.share,
            "interval_95": [self.accuracy.low, self.accuracy.high],
            "interval": "Wilson, over pictures",
        }
        predictions = [
            {
                "file": file,
                "class": self.predicted[row],
                "true_class": self.truth[row],
                "probability": float(self.probabilities[row].max()),
                "entropy_bits": float(self.entropy[row]),
                "probabilities": dict(zip(self.classes, map(float, self.probabilities[row]), strict=True)),
            }
            for row, file in enumerate(self.files)
        ]
        confusion = None if self.confusion is None else self.confusion.tolist()
        whole = self.about | {
            "classes": list(self.classes),
            "accuracy": accuracy,
            "confusion": confusion,
            "predictions": predictions,
        }
        return json.dumps(whole, indent=1)

    def screen(self) -> str:
        """The first pictures in a table, then accuracy and confusion where truth is known."""
        rows = [["file", "class", "probability", "entropy (bits)", ""]]
        for row, file in enumerate(self.files[:SCREEN_ROWS]):
            truth = self.truth[row]
            mark = "" if truth is None else "right" if truth == self.predicted[row] else f"wrong, is {truth}"
            p = f"{100 * self.probabilities[row].max():.1f} %"
            rows.append([file, self.predicted[row], p, f"{self.entropy[row]:.2f}", mark])
        lines = _columns(rows)
        if len(self.files) > SCREEN_ROWS:
            lines.append(f"... and {len(self.files) - SCREEN_ROWS} more: --out FILE.csv or FILE.json writes all")
        if self.accuracy is not None and self.confusion is not None:
            lines += ["", str(self.accuracy)]
            if len(self.classes) <= SCREEN_CLASSES:
                numbers = [str(number) for number in range(1, len(self.classes) + 1)]
                rows = [["", "true class, below predicted class", *numbers]]
                for number, name, counts in zip(numbers, self.classes, self.confusion, strict=True):
                    rows.append([number, name, *map(str, counts)])
                lines += _columns(rows)
            else:
                lines.append(f"the confusion of {len(self.classes)} classes is in --out FILE.json")
        return "\n".join(lines)


def _columns(rows: list[list[str]]) -> list[str]:
    rows = [[_short(printable(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _short(text: str, most: int = 40) -> str:
    """A name with an ellipsis for its beginning where it is long, since names differ at their ends."""
    return text if len(text) <= most else f"\u2026{text[1 - most :]}"
