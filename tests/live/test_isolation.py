"""One command can hurt no other: values that cannot be looked up or written, in every field of every kind of command.

The doors let none of them in; the ledger does not rely on that.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

import sharesrv.domain
from sharesrv.auth import digest
from sharesrv.domain.answer import Answer
from sharesrv.domain.ask import Request
from sharesrv.domain.change import AmendGrant, ChangeGrant, Rename, SetEnd
from sharesrv.domain.codes import Accept, CreateCode, FindDevice, Inspect, Invite
from sharesrv.domain.connect import Connect, FindAudience, Received, Register, TellLeft
from sharesrv.domain.control import CompleteUpdate, Query, QueryItself, Report, UpdateDevice
from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import Coded, Connected, Done, Reply, Waiting
from sharesrv.domain.record_checks import AccountRecord, DeviceRecord, GrantRecord, TokenRecord
from sharesrv.domain.records import (
    ChangeAccount,
    ChangeDevice,
    DeleteAccount,
    DeleteDevice,
    RevokeToken,
    WriteRecords,
)
from sharesrv.domain.rules import Rules
from sharesrv.domain.source import Device, Untold
from sharesrv.domain.take_back import Cancel, EndAll, EndShare, Expire, Leave, Unshare
from sharesrv.domain.trim import TrimAnswers, TrimJournal, TrimShares, TrimTokens
from sharesrv.errors import Refusal
from sharesrv.live.ledger import Ledger
from sharesrv.store.sqlite.store import SqliteStore
from tests.wire import GUEST, OTHER, OWNER, UIDS, at, device_row, fill, query
from tests.world import START_MS, FakeClock, came_to

RULES = Rules(open_offers=0, offers_per_minute=0, unknown_uids_per_minute=0, handshakes_per_minute=0)
SURROGATE = "\ud800"
HOSTILE: dict[object, list[Any]] = {
    str: [SURROGATE],
    int: [2**63, 10**25],
    msgspec.Raw: [msgspec.Raw(b'"\xff"')],
}
# What is only compared, or handed on: such a command may as well succeed.
HARMLESS = {
    "Answer.apikey",
    "Answer.device_id",
    "Answer.sequence",
    "Answer.session",
    "Cancel.sharer_id",
    "CompleteUpdate.account_id",
    "CompleteUpdate.session",
    "Connect.session",
    "CreateCode.auth_key",
    "Invite.auth_key",
    "Query.wanted",
    "QueryItself.wanted",
    "Register.session",
    "Request.share_time",
    "UpdateDevice.sequence",
    "UpdateDevice.session",
}

owner, guest, other = (digest(at(id)) for id in (OWNER, GUEST, OTHER))
# What every file begins with: an offer of the lamp to the guest, a grant on the bridge, and a share code of a plug.
OFFER, GRANT, CODE = 1, 3, 5
BEGINNING: list[Command] = [
    Request(sharer_id=OWNER, device_id="lamp", uid=UIDS[GUEST], sequence="1", device_name="", user_name="", note=""),
    WriteRecords(grants=[GrantRecord("bridge", GUEST, 1, "", 0)]),
    CreateCode(digest=owner, pk="P", dk="plug-0", accept_by_ms=10**14, cover_mark=2),
]
SAMPLES: list[Command] = [
    Request(
        sharer_id=OWNER,
        device_id="plug-0",
        uid=UIDS[OTHER],
        sequence="1",
        device_name="",
        user_name="",
        note="",
        permit=1,
        share_time=5,
    ),
    Answer(
        sharee_id=GUEST, accepts=True, code=f"code-{OFFER + 1}", device_id="lamp", sequence="1", apikey=GUEST, session=1
    ),
    Cancel(sharer_id=OWNER, device_id="lamp", uid=UIDS[GUEST]),
    ChangeGrant(sharer_id=OWNER, device_id="bridge", uid=UIDS[GUEST], permit=1, note=""),
    Connect(digest=owner, account_id=OWNER),
    Received((OFFER,)),
    Register("lamp", digest("key-lamp")),
    FindAudience("lamp"),
    TellLeft(),
    CreateCode(digest=owner, pk="P", dk="plug-0", auth_key="", accept_by_ms=10**14, ends_ms=10**15),
    Invite(digest=owner, pk="P", dk="plug-0", auth_key="", recipient_id=GUEST, ends_ms=10**15),
    Invite(digest=owner, pk="P", dk="plug-0", recipient_uid=UIDS[GUEST]),
    FindDevice(digest=owner, pk="P", dk="plug-0"),
    Accept(digest=guest, code=f"code-{CODE + 1}", device_name=""),
    Inspect(digest=guest, code=f"code-{GRANT + 1}"),
    SetEnd(digest=owner, code=f"code-{GRANT + 1}", ends_ms=10**15),
    Rename(digest=guest, code=f"code-{GRANT + 1}", device_name=""),
    Leave(digest=guest, code=f"code-{GRANT + 1}", device_id="plug-0"),
    Unshare(digest=owner, code=f"code-{GRANT + 1}", device_id="plug-0"),
    EndShare(GRANT),
    EndAll(sharer_id=OWNER, sharee_id=GUEST, quietly=True),
    AmendGrant(GRANT, permit=1, note="", ends_ms=10**15),
    Expire(OFFER),
    UpdateDevice(
        account_id=OWNER, device_id="lamp", apikeys=(OWNER,), sequence="1", params={"a": msgspec.Raw(b"1")}, session=1
    ),
    CompleteUpdate(account_id=OWNER, device_id="lamp", params={"a": msgspec.Raw(b"1")}, session=1),
    Query(account_id=OWNER, device_id="lamp", apikeys=(OWNER,), wanted=("a",)),
    QueryItself(speaker_id="lamp", device_id="lamp", wanted=("a",)),
    Report(speaker_id="lamp", device_id="lamp", params={"a": msgspec.Raw(b"1")}),
    WriteRecords(
        accounts=[AccountRecord("new", "new@example.org", "")],
        tokens=[TokenRecord("new", "token of new", 0)],
        devices=[DeviceRecord(Device("new", OWNER, "", None, True, True, "", "P", "new", "", 1), "{}")],
        grants=[GrantRecord("new", GUEST, 1, "", 0)],
    ),
    ChangeAccount(account_id=OTHER, uid="another@example.org", nickname=""),
    ChangeDevice(device_id="lamp", fields={"name": "", "pk": "P", "dk": "lamp", "auth_key": "", "uiid": 1}),
    RevokeToken(account_id=OTHER, token_id=digest(at(OTHER))[:16]),
    DeleteDevice(device_id="lamp"),
    DeleteAccount(account_id=OTHER),
    TrimShares(),
    TrimTokens(),
    TrimJournal(),
    TrimAnswers(Untold(OWNER, 1, 1)),
]


def kinds(base: type[Command] = Command) -> Iterator[type[Command]]:
    """All commands that the server has: what has no subclasses of its own."""
    for kind in base.__subclasses__():
        if kind.__module__.startswith("sharesrv."):
            yield from [kind] if not kind.__subclasses__() else kinds(kind)


def spoiled(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """`value` again and again, each time with one text or number in it that no database takes, and where that is."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            for at, bad in spoiled(getattr(value, name), f"{path}.{name}"):
                yield at, msgspec.structs.replace(value, **{name: bad})
    elif isinstance(value, dict):
        for name, each in value.items():
            yield f"{path}, a key", {**value, SURROGATE: each}
            yield from ((at, {**value, name: bad}) for at, bad in spoiled(each, f"{path}[{name}]"))
    elif isinstance(value, list | tuple):
        make = getattr(value, "_make", type(value))
        for number, each in enumerate(value):
            for at, bad in spoiled(each, f"{path}[{number}]"):
                yield at, make([*value[:number], bad, *value[number + 1 :]])
    else:
        yield from ((path, bad) for bad in HOSTILE.get(type(value), ()))


def hostile(kind: type[Command]) -> list[tuple[str, Command]]:
    """Commands of this kind, each with one hostile value, and where that is."""
    return [
        (f"{kind.__name__}{path}", command)
        for sample in SAMPLES
        if type(sample) is kind
        for path, command in spoiled(sample)
    ]


class Desk:
    """A ledger over a real file, the replies to its commands, and whether somebody else could write."""

    def __init__(self, store: SqliteStore, clock: FakeClock, path: Path) -> None:
        self.path = path
        self.ledger = Ledger(store, clock, RULES, tell=lambda _notice: None)

    async def do(self, commands: Sequence[Command]) -> list[object]:
        """Commands as one batch; what they came to. Nobody holds the write lock behind it."""
        replies: dict[int, Reply] = {}
        for number, command in enumerate(commands):
            self.ledger.submit(command, lambda reply, number=number: replies.update({number: reply}))  # type: ignore[misc]
        self.ledger.stop()
        await self.ledger.run()
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=0)) as neighbour:
            neighbour.execute("BEGIN IMMEDIATE")
        assert sorted(replies) == list(range(len(commands)))
        return [came_to(replies[number]) for number in range(len(commands))]


@asynccontextmanager
async def desk_over(template: Path, path: Path) -> AsyncIterator[Desk]:
    """A desk over a copy of the file."""
    shutil.copy(template, path)
    clock = FakeClock(START_MS + 1)
    async with SqliteStore(path, clock) as store:
        await store._writer.run(lambda connection: connection.execute("PRAGMA synchronous = OFF"))
        desk = Desk(store, clock, path)
        assert await desk.do(BEGINNING) == [Waiting, Done, Coded]
        yield desk


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the kit's accounts and devices, and 512 plugs of the owner's."""
    path = tmp_path_factory.mktemp("template") / "share.db"
    fill(
        path,
        devices=[device_row(f"plug-{number}", pk="P", dk=f"plug-{number}") for number in range(SqliteStore.batch_max)],
    )
    return path


def ask(number: int) -> Request:
    """A good command: a request for the plug of this number."""
    return Request(
        sharer_id=OWNER,
        device_id=f"plug-{number}",
        uid=UIDS[GUEST],
        sequence="1",
        device_name="Plug",
        user_name="Owner",
        note="",
    )


GREETINGS: list[Command] = [
    Connect(digest=owner, account_id=OWNER),
    Connect(digest=guest, account_id=GUEST),
    Connect(digest=other, account_id=OTHER),
]
GREET = GREETINGS[0]


def test_there_is_a_sample_of_every_kind_of_command_with_a_value_in_every_field() -> None:
    for module in iter_modules(sharesrv.domain.__path__):
        import_module(f"sharesrv.domain.{module.name}")
    wanted = {(kind.__name__, name) for kind in kinds() for name in kind.__struct_fields__}
    given = {
        (type(sample).__name__, name)
        for sample in SAMPLES
        for name in sample.__struct_fields__
        if getattr(sample, name) not in (None, (), {})
    }
    assert {kind.__name__ for kind in kinds()} == {type(sample).__name__ for sample in SAMPLES}
    assert wanted == given


@pytest.mark.parametrize("kind", {type(sample): None for sample in SAMPLES})
async def test_a_hostile_command_of_each_kind_hurts_nobody(kind: type[Command], template: Path, database: Path) -> None:
    async with desk_over(template, database) as desk:
        for turn, (where, command) in enumerate(hostile(kind)):
            first = 3 * turn + 1
            with capture_logs():
                came = await desk.do([ask(first), GREET, command, ask(first + 1), GREET])
            assert came[:2] + came[3:] == [Waiting, Connected, Waiting, Connected], where
            assert isinstance(came[2], Refusal) or where.partition("[")[0] in HARMLESS, (where, came[2])
            assert await desk.do([ask(first + 2), *GREETINGS]) == [Waiting, *[Connected] * 3], where


@pytest.mark.parametrize("field", ["device_name", "device_id"])
async def test_a_hostile_command_among_511_good_ones_hurts_nobody(field: str, template: Path, database: Path) -> None:
    """One that cannot be written, and one that cannot even be looked up."""
    good: list[Command] = [ask(number) if number % 4 else GREET for number in range(SqliteStore.batch_max - 1)]
    bad = msgspec.structs.replace(ask(511), **{field: SURROGATE})
    async with desk_over(template, database) as desk:
        with capture_logs() as logs:
            came = await desk.do([*good[:300], bad, *good[300:]])
        assert came[300] is Refusal.INTERNAL
        assert came[:300] + came[301:] == [
            Waiting if number % 4 else Connected for number in range(SqliteStore.batch_max - 1)
        ]
        assert [(entry["command"], type(entry["exc_info"])) for entry in logs] == [("Request", UnicodeEncodeError)]
        assert query(database, "SELECT count(*) FROM share WHERE device_id LIKE 'plug-%' AND origin = 0") == [(383,)]
        assert await desk.do([ask(511), ask(1)]) == [Waiting, Waiting]


async def test_a_batch_of_nothing_but_hostile_commands_hurts_nobody(template: Path, database: Path) -> None:
    bad = msgspec.structs.replace(ask(0), note=SURROGATE)
    async with desk_over(template, database) as desk:
        with capture_logs() as logs:
            assert await desk.do([bad] * 16) == [Refusal.INTERNAL] * 16
        assert len(logs) == 1
        assert await desk.do([ask(0)]) == [Waiting]
