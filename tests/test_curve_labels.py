"""Places of labels beside the ends of curves."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_meta.curve_labels import apart

HEIGHTS = st.lists(st.floats(0, 100), min_size=1, max_size=8)


@given(HEIGHTS)
def test_places_are_apart_in_order_and_within_the_axes(values: list[float]) -> None:
    places = apart(values, 10.0, 0.0, 100.0)
    for i, j in itertools.combinations(range(len(values)), 2):
        assert abs(places[i] - places[j]) > 10 - 1e-9
        assert values[i] == values[j] or (values[i] < values[j]) == (places[i] < places[j])
    assert min(places) >= -1e-9
    assert max(places) <= 100 + 1e-9


@given(HEIGHTS)
def test_labels_that_are_apart_stay_where_they_are(values: list[float]) -> None:
    kept = [10.0 * i for i in range(len(values))]
    assert apart(kept, 10.0, 0.0, 100.0) == pytest.approx(kept)


@given(st.lists(st.floats(30, 70), min_size=2, max_size=3))
def test_no_other_places_are_closer(values: list[float]) -> None:
    """By a search on a grid, where the limits are far."""
    found = apart(values, 10.0, 0.0, 100.0)
    cost = sum((place - value) ** 2 for place, value in zip(found, values, strict=True))
    for places in itertools.product(range(0, 101, 5), repeat=len(values)):
        if all(abs(one - other) >= 10 for one, other in itertools.combinations(places, 2)):
            assert cost <= sum((place - value) ** 2 for place, value in zip(places, values, strict=True)) + 1e-6
