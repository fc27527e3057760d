"""Caches bounded by bytes: what is in use stays, and what comes only once takes little."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.database.recent import OVERHEAD, Recent

ROOM = 100 * (OVERHEAD + 100)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 8_000)), max_size=200))
def test_there_is_never_more_than_there_is_room(steps: list[tuple[bool, int, int]]) -> None:
    """And what is found is what was put last."""
    cache: Recent[int, int] = Recent(ROOM)
    truth: dict[int, int] = {}
    for is_put, key, size in steps:
        if is_put:
            cache.put(key, size, size)
            truth[key] = size
        elif (found := cache.get(key)) is not None:
            assert found == truth[key]
        assert 0 <= cache.size <= ROOM
        assert (cache.size == 0) is (len(cache) == 0)
    cache.clear()
    assert (cache.size, len(cache)) == (0, 0)


def test_keys_that_come_once_push_nothing_out_that_is_used() -> None:
    """However many they are; they take an eighth of the room."""
    cache: Recent[str, int] = Recent(ROOM)
    cache.put("used", 1, 100)
    for _ in range(3):
        assert cache.get("used") == 1
    for number in range(1_000):
        cache.put(f"once {number}", number, 100)
    assert cache.get("used") == 1
    assert cache.size <= ROOM // 8 + OVERHEAD + 100


def test_what_comes_again_soon_is_kept() -> None:
    """Though more keys take turns than there is room for new ones."""
    cache: Recent[int, int] = Recent(ROOM)
    for _ in range(2):
        for number in range(50):
            if cache.get(number) is None:
                cache.put(number, number, 100)
    assert all(cache.get(number) == number for number in range(50))


def test_a_very_large_entry_is_not_kept() -> None:
    """One takes an eighth of the room at most, or the share that was asked for."""
    for share in (8, 2):
        cache: Recent[str, int] = Recent(ROOM, max_share=share)
        cache.put("largest", 1, ROOM // share - OVERHEAD)
        cache.put("larger", 2, ROOM // share - OVERHEAD + 1)
        assert (cache.get("largest"), cache.get("larger")) == (1, None)
