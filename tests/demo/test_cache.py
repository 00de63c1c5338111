"""The bound of a cache."""

import pytest

from lightning_meta.demo.cache import Cache


def test_the_values_used_last_stay_within_the_bound() -> None:
    cache: Cache[str] = Cache(10, len)
    made: list[str] = []

    def get(key: str, length: int = 3) -> str:
        return cache.get(key, lambda: made.append(key) or key * length)

    for key in "abcab":
        assert get(key) == 3 * key
    assert made == ["a", "b", "c"]
    get("d")  # 12 of 10: c is the one that was not used for longest
    assert cache.bytes == 9
    get("a"), get("b"), get("d")
    assert made == ["a", "b", "c", "d"]
    get("c")
    assert made == ["a", "b", "c", "d", "c"]
    assert len(cache) == 3


def test_the_newest_value_stays_however_large() -> None:
    cache: Cache[str] = Cache(10, len)
    cache.get("small", lambda: "a")
    assert cache.get("large", lambda: "b" * 100) == "b" * 100
    assert (len(cache), cache.bytes) == (1, 100)
    assert cache.get("large", lambda: pytest.fail("made again")) == "b" * 100
