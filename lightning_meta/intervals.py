"""95% intervals of a mean over tasks: the papers' normal one, and one that holds for accuracies near 0 and 1.

The normal interval, mean ± 1.96 s / sqrt(tasks), takes the deviation s of the tasks' accuracies for known. Near 100%
few tasks say what it is, and an interval that saw none of the rare bad tasks is too narrow and too high. Wilson's
interval takes the deviation from the accuracy that it asks about. For tasks it needs their effective number, at which
single right or wrong answers would give the same deviation: accuracy (1 - accuracy) tasks / s^2.

Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927; with an effective sample
size: Franco, Little, Louis and Slud, "Comparative study of confidence intervals for proportions in complex sample
surveys", Journal of Survey Statistics and Methodology 2019; with Student's quantile: Korn and Graubard, "Confidence
intervals for proportions with small expected number of positive counts estimated from survey data", Survey Methodology
1998.
``benchmarks/studies/interval_coverage.py`` measures how often each covers the truth. Standard library only.
"""

import math
from typing import NamedTuple

NORMAL_975 = 1.959964

# The .975 quantile of Student's t distribution for 1 to 30 degrees of freedom.
STUDENT_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
ENOUGH_ERRORS = 30.0  # from which on the normal interval covers the truth as often as Wilson's


class Bounds(NamedTuple):
    """Both ends of an interval."""

    low: float
    high: float


def student_975(freedom: int) -> float:
    """The .975 quantile of Student's t distribution, to 0.001.

    >>> student_975(3), round(student_975(99), 3)
    (3.182, 1.984)
    """
    if freedom <= len(STUDENT_975):
        return STUDENT_975[freedom - 1]
    z = NORMAL_975  # Cornish and Fisher's expansion
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def effective_tasks(mean: float, half_width: float, tasks: int) -> float:
    """How many single right or wrong answers would spread as these accuracies do; ``tasks`` where all are right.

    Args:
        mean: accuracy over tasks, in 0..1.
        half_width: of its normal 95% interval.
        tasks: how many there are.

    >>> round(effective_tasks(0.98, 1.959964 * (0.98 * 0.02 / 500) ** 0.5, 100))  # five queries that are independent
    500
    """
    variance = (half_width / NORMAL_975) ** 2
    alone = mean * (1 - mean)
    if alone <= 0:
        return float(tasks)
    return alone / variance if variance > 0 else math.inf


def is_normal(mean: float, half_width: float, tasks: int) -> bool:
    """Whether the normal interval holds: 30 effective answers are wrong, and as many right.

    >>> is_normal(0.90, 0.013, 400), is_normal(0.99, 0.009, 100)
    (True, False)
    """
    return effective_tasks(mean, half_width, tasks) * min(mean, 1 - mean) >= ENOUGH_ERRORS


def wilson(mean: float, half_width: float, tasks: int) -> Bounds:
    """Wilson's 95% interval of an accuracy over tasks; arguments as of `effective_tasks`.

    >>> [round(bound, 4) for bound in wilson(0.98, 1.959964 * (0.98 * 0.02 / 500) ** 0.5, 100)]
    [0.9633, 0.9892]
    >>> [round(bound, 4) for bound in wilson(1.0, 0.0, 100)]
    [0.9621, 1.0]
    """
    quantile = student_975(tasks - 1) if tasks > 1 else STUDENT_975[0]
    number = effective_tasks(mean, half_width, tasks)
    share = quantile**2 / number
    centre = (mean + share / 2) / (1 + share)
    reach = math.sqrt(share * mean * (1 - mean) + share**2 / 4) / (1 + share)
    return Bounds(max(min(centre - reach, mean), 0.0), min(max(centre + reach, mean), 1.0))  # rounding aside


def near_the_edge(mean: float, half_width: float, tasks: int) -> Bounds | None:
    """Wilson's interval where the normal one does not hold; None where it does, or where this is no accuracy."""
    if not (0 <= mean <= 1 and 0 <= half_width <= NORMAL_975 and tasks >= 1) or is_normal(mean, half_width, tasks):
        return None
    return wilson(mean, half_width, tasks)


def of_accuracy(mean: float, half_width: float, tasks: int) -> Bounds:
    """The normal interval of an accuracy where that holds, otherwise Wilson's."""
    return near_the_edge(mean, half_width, tasks) or Bounds(mean - half_width, mean + half_width)
