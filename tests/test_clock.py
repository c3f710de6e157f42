from __future__ import annotations

import re
import time

import pytest

from sharesrv.clock import SharedClock, SystemClock


def test_ids_grow_and_fit_into_63_bits() -> None:
    clock = SystemClock()
    ids = [clock.new_id() for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert all(0 < id < 2**63 for id in ids)


def test_an_id_says_when_it_was_made() -> None:
    clock = SystemClock()
    before = clock.now_ms()
    id = clock.new_id()
    assert before <= id >> 20 <= clock.now_ms()


def test_ids_of_two_processes_do_not_meet() -> None:
    ids = [SystemClock().new_id() for _ in range(50)]
    assert len(set(ids)) == 50


def test_ids_grow_though_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    first = clock.new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    assert first < clock.new_id() < clock.new_id()


def test_now_goes_on_though_the_clock_is_set_back_and_follows_when_it_is_set_forward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall_s, elapsed_s = [1_700_000_000], [50]
    monkeypatch.setattr(time, "time_ns", lambda: wall_s[0] * 10**9)
    monkeypatch.setattr(time, "monotonic_ns", lambda: elapsed_s[0] * 10**9)
    clock = SystemClock()
    began_ms = clock.now_ms()
    assert began_ms == 1_700_000_000_000
    wall_s[0] -= 3600
    assert clock.now_ms() == began_ms
    wall_s[0] += 10
    elapsed_s[0] += 10
    assert clock.now_ms() == began_ms + 10_000
    wall_s[0] += 7200
    assert clock.now_ms() == began_ms + 3600_000 + 10_000


def test_now_is_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_123_999_999)
    assert SystemClock().now_ms() == 1_700_000_000_123


def test_codes_have_144_random_bits_in_characters_that_need_no_escaping() -> None:
    codes = {SystemClock().new_code() for _ in range(200)}
    assert len(codes) == 200
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", code) for code in codes)
    assert len({code[8:] for code in codes}) == 200
    assert len({code[:5] for code in codes}) == 1


# The database's time, which nodes share.


def test_a_shared_clock_goes_by_what_it_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    elapsed_ms = [5_000]
    monkeypatch.setattr(time, "monotonic_ns", lambda: elapsed_ms[0] * 1_000_000)
    clock = SharedClock()
    clock.hear(1_700_000_000_000)
    assert clock.now_ms() == 1_700_000_000_000
    elapsed_ms[0] += 250
    assert clock.now_ms() == 1_700_000_000_250
    clock.hear(1_700_000_001_000)
    assert clock.now_ms() == 1_700_000_001_000


def test_a_shared_clock_never_goes_back_before_what_it_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    elapsed_ms = [5_000]
    monkeypatch.setattr(time, "monotonic_ns", lambda: elapsed_ms[0] * 1_000_000)
    clock = SharedClock()
    clock.hear(10_000)
    elapsed_ms[0] += 100
    assert clock.now_ms() == 10_100
    clock.hear(9_000)
    assert clock.now_ms() == 10_100
    elapsed_ms[0] += 2_000
    assert clock.now_ms() == 11_000


def test_the_machines_clock_does_not_matter_once_the_databases_was_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 2**62)
    clock = SharedClock()
    assert clock.now_ms() > 2**40
    clock.hear(10_000)
    assert 10_000 <= clock.now_ms() < 60_000


def test_a_shared_clock_can_be_held() -> None:
    clock = SharedClock()
    clock.hear(10_000)
    with clock.held(12_345):
        assert clock.now_ms() == 12_345
    assert 10_000 <= clock.now_ms() < 60_000


def test_ids_of_a_node_carry_its_number_and_grow() -> None:
    clock = SharedClock()
    first = clock.new_id()
    clock.node = 1023
    with clock.held(clock.now_ms() + 1000):
        ids = [clock.new_id() for _ in range(3000)]  # more than a millisecond has room for
    assert ids == sorted({first, *ids})[1:]
    assert {id >> 10 & 1023 for id in ids} == {1023}
    assert (ids[-1] >> 20) - (ids[0] >> 20) == 2
    clock.node = 1
    assert {clock.new_id() >> 10 & 1023 for _ in range(5)} == {1}
    assert clock.new_id() > ids[-1]


def test_two_nodes_never_make_the_same_id() -> None:
    one, other = SharedClock(), SharedClock()
    one.node, other.node = 1, 2
    ids = [clock.new_id() for _ in range(3000) for clock in (one, other)]
    assert len(set(ids)) == 6000
