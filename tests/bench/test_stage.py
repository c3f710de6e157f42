from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from sharesrv.bench import stage
from sharesrv.bench.stage import Import, Process, room_for
from sharesrv.bench.stores import Stores
from sharesrv.errors import Trouble


def test_a_process_that_is_not_there_is_not_measured() -> None:
    gone = Process(2**22 + 1)
    assert (gone.cpu_s(), gone.rss_bytes()) == (None, None)
    here = Process(os.getpid())
    assert here.cpu_s() is not None
    assert here.rss_bytes()


def test_no_more_connections_than_files_can_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, wanted, room in [((1000, 1000), 800, 500), ((1000, 1000), 400, 400), ((100, 100), 10, 1)]:
        monkeypatch.setattr(resource, "getrlimit", lambda _which, limit=limit: limit)
        assert room_for(wanted) == room
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert room_for(10**6) == 10**6


def test_a_limit_that_can_be_lifted_is(monkeypatch: pytest.MonkeyPatch) -> None:
    lifted: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1000, 5000))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: lifted.append(limits))
    assert room_for(4000) == 4000
    assert lifted == [(5000, 5000)]


def test_a_server_that_does_not_start(tmp_path: Path) -> None:
    database = tmp_path / "none" / "x.db"
    database.parent.mkdir()
    database.mkdir()
    with pytest.raises(Trouble, match="serve --set did not start"), stage.server(database):
        pass
    assert sorted(each.name for each in database.parent.iterdir()) == ["x.db", "x.db-lock"]


def test_records_that_cannot_be_imported(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="line 1"):
        Stores(tmp_path).filled("base", [b"{}\n"])


def test_an_import_that_is_not_wanted_any_more(tmp_path: Path) -> None:
    stores = Stores(tmp_path)
    importing = Import(stores.path("base"), stores.written("base", [b"{}\n"]), stage.cores()[0])
    importing.abandon()
    importing.abandon()
