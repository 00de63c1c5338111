"""The weight generators, on the thesis's example and where formulas could break."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_meta.distributed import ArithmeticMean, LossMedian, LossMovingAverage, LossWeightedMean, WeightGenerator
from lightning_meta.errors import MetaLearningError

LOSSES = (2, 3, 8, 19, 20)
ACCURACIES = (Fraction(89, 100), Fraction(88, 100), Fraction(60, 100), Fraction(43, 100), Fraction(40, 100))
INVERSE = [1 / Fraction(loss) / sum(1 / Fraction(other) for other in LOSSES) for loss in LOSSES]
GENERATORS = [ArithmeticMean(), LossMedian(), LossWeightedMean(), LossMovingAverage()]


def column(*losses: float) -> torch.Tensor:
    return torch.tensor(losses, dtype=torch.float64)[:, None]


@pytest.mark.parametrize(
    ("generator", "weights", "accuracy"),
    [
        (ArithmeticMean(), [Fraction(1, 5)] * 5, 0.64),
        (LossMedian(), [0, 0, 1, 0, 0], 0.60),
        (LossWeightedMean(), INVERSE, 0.80678),
        (LossMovingAverage(), INVERSE, 0.80678),
    ],
)
def test_the_example_of_the_thesis(generator: WeightGenerator, weights: list[Fraction], accuracy: float) -> None:
    found = generator(column(*LOSSES))
    torch.testing.assert_close(found, torch.tensor([float(weight) for weight in weights]).double(), rtol=1e-7, atol=0)
    assert float(found @ torch.tensor([float(part) for part in ACCURACIES]).double()) == pytest.approx(
        accuracy, abs=5e-6
    )


def test_the_inverse_weights_minimise_the_priced_squares() -> None:
    """The derivation in the docstring, by an independent solver: a linear system with a multiplier."""
    losses = torch.tensor(LOSSES).double()
    system = torch.zeros(6, 6, dtype=torch.float64)
    system[:5, :5] = 2 * losses.diag()
    system[:5, 5], system[5, :5] = -1, 1
    minimum = torch.linalg.solve(system, torch.tensor([0, 0, 0, 0, 0, 1]).double())[:5]
    torch.testing.assert_close(LossWeightedMean()(losses[:, None]), minimum, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("losses", "taken"), [((3.0, 1.0), 1), ((4.0, 1.0, 3.0, 2.0), 3), ((1.0, 1.0, 1.0), 1), ((5.0, 5.0), 0)]
)
def test_the_median_of_an_even_number_or_of_equal_losses(losses: tuple[float, ...], taken: int) -> None:
    assert LossMedian()(column(*losses)).argmax() == taken


def test_only_the_moving_average_looks_back() -> None:
    losses = torch.tensor([[9.0, 1.0], [3.0, 3.0]], dtype=torch.float64)
    assert LossMedian()(losses).tolist() == [1, 0]
    assert LossWeightedMean()(losses).tolist() == pytest.approx([3 / 4, 1 / 4])
    assert LossMovingAverage()(losses).tolist() == pytest.approx([3 / 8, 5 / 8])


@pytest.mark.parametrize("generator", [LossWeightedMean(), LossMovingAverage()])
def test_a_loss_of_nothing_takes_all_the_weight(generator: WeightGenerator) -> None:
    assert generator(column(0, 2, 0)).tolist() == [0.5, 0, 0.5]
    assert generator(column(0, 0)).tolist() == [0.5, 0.5]
    assert generator(column(1e-300, 1)).tolist() == [1, pytest.approx(1e-300)]


@pytest.mark.parametrize("generator", [LossWeightedMean(), LossMovingAverage()])
def test_a_negative_loss_is_refused(generator: WeightGenerator) -> None:
    with pytest.raises(MetaLearningError, match="outer loss is -0.5, .* set the generator of JoinWeights to"):
        generator(column(1, -0.5))


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: type(generator).__name__)
@given(losses=st.lists(st.lists(st.floats(0, 1e6), min_size=3, max_size=3), min_size=2, max_size=9))
def test_weights_sum_to_one_and_a_lower_loss_never_weighs_less(
    generator: WeightGenerator, losses: list[list[float]]
) -> None:
    rows = torch.tensor(losses, dtype=torch.float64)
    weights = generator(rows)
    assert weights.sum().item() == pytest.approx(1)
    assert weights.min() >= 0
    if not isinstance(generator, LossMedian):
        judged = rows.mean(1) if isinstance(generator, LossMovingAverage) else rows[:, -1]
        assert (weights[judged.argsort()].diff() <= 0).all()
