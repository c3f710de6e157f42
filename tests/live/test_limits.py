from __future__ import annotations

import pytest

from sharesrv.domain.facts import Recent
from sharesrv.live import limits
from sharesrv.live.limits import Bucket, Recents
from tests.world import FakeClock

GUESSES = ("guesses", "owner", "")
HANDSHAKES = ("handshakes", "owner", "")


def test_what_was_done_counts_for_a_minute() -> None:
    clock = FakeClock()
    recents = Recents(clock.now_ms)
    assert recents.count(GUESSES) == 0
    recents.add(GUESSES)
    clock.advance(ms=30_000)
    recents.add(GUESSES)
    assert recents.count(GUESSES) == 2
    clock.advance(ms=29_999)
    assert recents.count(GUESSES) == 2
    clock.advance(ms=1)
    assert recents.count(GUESSES) == 1
    clock.advance(ms=30_000)
    assert recents.count(GUESSES) == 0


@pytest.mark.parametrize("other", [("guesses", "guest", ""), ("offers", "owner", ""), ("guesses", "owner", "x")])
def test_everything_is_counted_for_itself(other: Recent) -> None:
    recents = Recents(FakeClock().now_ms)
    recents.add(GUESSES)
    assert recents.count(other) == 0


def test_what_is_over_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_SWEEP_AT", 10)
    clock = FakeClock()
    recents = Recents(clock.now_ms)
    for number in range(10):
        recents.add(("guesses", str(number), ""))
    clock.advance(ms=60_000)
    recents.add(GUESSES)
    assert list(recents._times) == [GUESSES]


def test_what_still_counts_is_not_swept_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_SWEEP_AT", 3)
    recents = Recents(FakeClock().now_ms)
    keys = [("guesses", str(number), "") for number in range(50)]
    for key in keys:
        recents.add(key)
    assert [recents.count(key) for key in keys] == [1] * 50


def taken(bucket: Bucket, now_s: float, tries: int) -> int:
    return sum(bucket.take(now_s) for _ in range(tries))


def test_a_burst_fits_in_at_once_and_then_the_rate() -> None:
    bucket = Bucket(rate=50, burst=100, now_s=0.0)
    assert taken(bucket, 0.0, 200) == 100
    assert taken(bucket, 0.5, 200) == 25
    assert taken(bucket, 1.0, 200) == 25


def test_rest_does_not_save_up_more_than_a_burst() -> None:
    bucket = Bucket(rate=50, burst=100, now_s=0.0)
    assert taken(bucket, 1_000.0, 200) == 100


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (2, 0), (0, 0)])
def test_2_9_a_rate_or_a_burst_of_0_is_no_limit(rate: int, burst: int) -> None:
    bucket = Bucket(rate, burst, now_s=0.0)
    assert taken(bucket, 0.0, 1_000) == 1_000
    assert bucket.flooded_s(0.0) == 0.0


@pytest.mark.parametrize(("rate", "burst", "room_s"), [(50, 100, 1.0), (50, 10, 0.2), (1, 1, 1.0)])
def test_2_9_there_is_room_again_for_a_second_s_worth(rate: int, burst: int, room_s: float) -> None:
    bucket = Bucket(rate, burst, now_s=0.0)
    assert taken(bucket, 0.0, burst + 1) == burst
    assert not bucket.has_room(room_s - 0.01)
    assert bucket.has_room(room_s)
    assert taken(bucket, room_s, 200) == min(rate, burst)


def test_2_9_while_nothing_is_read_a_flood_goes_on() -> None:
    bucket = Bucket(rate=1, burst=1, now_s=0.0)
    assert taken(bucket, 0.0, 2) == 1
    assert bucket.has_room(1.5)
    assert [bucket.take(2.4), bucket.take(2.4)] == [True, False]
    assert bucket.flooded_s(2.4) == pytest.approx(2.4)


def test_a_flood_lasts_from_its_first_refusal_until_a_second_of_peace() -> None:
    bucket = Bucket(rate=1, burst=1, now_s=0.0)
    bucket.take(0.0)
    assert bucket.flooded_s(0.0) == 0.0
    assert [bucket.take(now_s) for now_s in (0.2, 0.9, 1.5, 1.8)] == [False, False, True, False]
    assert bucket.flooded_s(1.8) == pytest.approx(1.6)
    assert bucket.flooded_s(2.8) == pytest.approx(2.6)
    assert bucket.flooded_s(2.9) == 0.0


def test_after_peace_a_flood_begins_anew() -> None:
    bucket = Bucket(rate=1, burst=1, now_s=0.0)
    assert [bucket.take(now_s) for now_s in (0.0, 0.1, 5.0, 5.1)] == [True, False, True, False]
    assert bucket.flooded_s(5.1) == 0.0
    assert bucket.flooded_s(5.6) == pytest.approx(0.5)


def test_what_is_never_asked_for_is_forgotten_too() -> None:
    clock = FakeClock()
    recents = Recents(clock.now_ms)
    for _ in range(50):
        recents.add(HANDSHAKES)
        clock.advance(ms=10_000)
    assert len(recents._times[HANDSHAKES]) <= 7
