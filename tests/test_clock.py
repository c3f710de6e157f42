from __future__ import annotations

import re
import time

import pytest

from sharesrv.clock import SystemClock


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
    assert clock.now_ms() == 0
    assert first < clock.new_id() < clock.new_id()


def test_now_is_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_123_999_999)
    assert SystemClock().now_ms() == 1_700_000_000_123


def test_codes_have_144_random_bits_in_characters_that_need_no_escaping() -> None:
    codes = {SystemClock().new_code() for _ in range(200)}
    assert len(codes) == 200
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", code) for code in codes)
    assert len({code[8:] for code in codes}) == 200
    assert len({code[:5] for code in codes}) == 1
