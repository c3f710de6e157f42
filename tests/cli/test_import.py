"""`sharesrv import`: what each record does, what is refused by line, and what a running server makes of it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from sharesrv.auth import digest
from sharesrv.cli import composition
from sharesrv.cli.import_ import import_
from sharesrv.domain.share import Cause, Channel, Origin, State
from sharesrv.errors import Trouble
from tests.process import run
from tests.wire import GUEST, OTHER, OWNER, UIDS, answer, fill, query, register, server, share

ANN = {"account": {"apikey": "ann", "uid": "Ann@Example.org", "nickname": "Ann"}}
BOB = {"account": {"apikey": "bob", "uid": "+8613570211956"}}
TOKEN = {"token": {"apikey": "ann", "at": "secret-of-ann", "expiresAt": 4_000_000_000_000}}
LAMP = {
    "device": {
        "deviceid": "lamp-2",
        "owner": "ann",
        "name": "Lamp",
        "devicekey": "k",
        "pk": "p1",
        "dk": "d1",
        "uiid": 1,
        "authKey": "a",
        "verified": False,
        "shareable": False,
        "params": {"switch": "on"},
    }
}
GRANT = {
    "share": {"device": "lamp-2", "sharee": "bob", "permit": 5, "note": "厨房", "sharingExpireAt": 4_000_000_000_000}
}
EVERYTHING = [ANN, BOB, TOKEN, LAMP, GRANT]


def account(apikey: str, uid: str, **fields: Any) -> dict[str, Any]:
    return {"account": {"apikey": apikey, "uid": uid} | fields}


def device(id: str, owner: str = "ann", **fields: Any) -> dict[str, Any]:
    return {"device": {"deviceid": id, "owner": owner, "devicekey": "k"} | fields}


def beyond(ends_ms: int) -> dict[str, Any]:
    return {"share": {"device": "mine", "sharee": "bob", "sharingExpireAt": ends_ms}}


def written(path: Path, lines: list[Any]) -> Path:
    """A file of these lines; bytes as they are, anything else as JSON."""
    file = path.with_name("import.jsonl")
    file.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return file


def load(path: Path, *lines: Any) -> None:
    import_(written(path, list(lines)), None, [f"database.url=sqlite:///{path}"])


async def load_beside(path: Path, *lines: Any) -> None:
    """The same while a server runs in this process, which must be able to end its transaction."""
    await asyncio.to_thread(load, path, *lines)


def tables(path: Path) -> list[list[tuple[Any, ...]]]:
    """All that the file holds."""
    names = ["account", "token", "device", "device_params", "share", "journal"]
    return [query(path, f"SELECT * FROM {name} ORDER BY 1") for name in names]


# What each record does.


def test_an_account(database: Path) -> None:
    load(database, ANN, BOB)
    assert query(database, "SELECT id, uid, uid_folded, nickname, token_serial FROM account ORDER BY id") == [
        ("ann", "Ann@Example.org", "ann@example.org", "Ann", 0),
        ("bob", "+8613570211956", "+8613570211956", "", 0),
    ]


def test_a_token_is_kept_as_a_digest(database: Path) -> None:
    load(database, ANN, TOKEN, {"token": {"apikey": "ann", "at": "another"}})
    assert query(database, "SELECT digest, account_id, serial, expires_ms FROM token ORDER BY serial") == [
        (digest("secret-of-ann"), "ann", 1, 4_000_000_000_000),
        (digest("another"), "ann", 2, 0),
    ]
    assert query(database, "SELECT token_serial FROM account") == [(2,)]


def test_a_device(database: Path) -> None:
    load(database, ANN, LAMP, device("plain"))
    columns = "id, owner_id, name, key_digest, pk, dk, uiid, bridge_id, auth_key, verified, shareable"
    assert query(database, f"SELECT {columns} FROM device ORDER BY id") == [
        ("lamp-2", "ann", "Lamp", digest("k"), "p1", "d1", 1, None, "a", 0, 0),
        ("plain", "ann", "", digest("k"), None, None, None, None, None, 1, 1),
    ]
    assert query(database, "SELECT * FROM device_params") == [("lamp-2", '{"switch":"on"}')]


def test_a_share_is_an_active_grant(database: Path) -> None:
    load(database, *EVERYTHING)
    columns = "origin, state, device_id, sharer_id, sharee_id, permit, note, ends_ms, told"
    assert query(database, f"SELECT {columns} FROM share") == [
        (Origin.IMPORT, State.ACTIVE, "lamp-2", "ann", "bob", 5, "厨房", 4_000_000_000_000, 1)
    ]
    assert query(database, "SELECT from_state, to_state, by, channel FROM journal") == [
        (None, State.ACTIVE, "import", Channel.IMPORT)
    ]


def test_records_come_in_any_order_with_blank_lines_between(database: Path) -> None:
    sub = device("sub", bridge="bridge")
    load(database, b"", GRANT, sub, TOKEN, b"  ", device("bridge"), LAMP, BOB, ANN, b"")
    assert query(database, "SELECT id, bridge_id FROM device ORDER BY id") == [
        ("bridge", None),
        ("lamp-2", None),
        ("sub", "bridge"),
    ]
    assert query(database, "SELECT count(*) FROM share") == [(1,)]


def test_a_byte_order_mark_is_skipped(database: Path) -> None:
    load(database, b"\xef\xbb\xbf" + json.dumps(ANN).encode(), BOB)
    assert query(database, "SELECT id FROM account ORDER BY id") == [("ann",), ("bob",)]


def test_null_is_the_same_as_absent_and_unknown_keys_are_ignored(database: Path) -> None:
    load(
        database,
        {"account": {"apikey": "ann", "uid": "a", "nickname": None, "colour": 1}, "token": None, "more": 2},
        BOB,
        device(
            "lamp-2", name=None, bridge=None, pk=None, dk=None, verified=None, shareable=None, params=None, uiid=None
        ),
        {"share": {"device": "lamp-2", "sharee": "bob", "permit": None, "note": None, "sharingExpireAt": None}},
    )
    assert query(database, "SELECT nickname FROM account WHERE id = 'ann'") == [("",)]
    assert query(database, "SELECT name, bridge_id, verified, shareable FROM device") == [("", None, 1, 1)]
    assert query(database, "SELECT permit, note, ends_ms FROM share") == [(0, "", 0)]


def test_of_two_records_for_one_thing_the_later_counts(database: Path) -> None:
    load(database, ANN, account("ann", "new@example.org"), device("a", name="old"), device("a", name="new"))
    assert query(database, "SELECT uid FROM account") == [("new@example.org",)]
    assert query(database, "SELECT name FROM device") == [("new",)]


# Again.


def test_again_updates_rows_and_keeps_known_tokens(database: Path) -> None:
    load(database, *EVERYTHING)
    tokens = query(database, "SELECT * FROM token")
    load(
        database,
        account("ann", "ann@new.org", nickname="Anna"),
        {"token": {"apikey": "ann", "at": "secret-of-ann", "expiresAt": 5}},
        device("lamp-2", name="Lampion", pk="p2", dk="d2"),
        {"share": {"device": "lamp-2", "sharee": "bob", "permit": 1}},
    )
    assert query(database, "SELECT uid, uid_folded, nickname, token_serial FROM account WHERE id = 'ann'") == [
        ("ann@new.org", "ann@new.org", "Anna", 1)
    ]
    assert query(database, "SELECT * FROM token") == tokens
    assert query(database, "SELECT name, pk, dk, verified FROM device") == [("Lampion", "p2", "d2", 1)]
    assert query(database, "SELECT * FROM device_params") == [("lamp-2", '{"switch":"on"}')]
    assert query(database, "SELECT state, permit, note, ends_ms, version FROM share") == [(State.ACTIVE, 1, "", 0, 2)]


def test_the_same_file_twice_makes_nothing_new(database: Path) -> None:
    load(database, *EVERYTHING)
    before = [len(rows) for rows in tables(database)]
    load(database, *EVERYTHING)
    assert [len(rows) for rows in tables(database)][:5] == before[:5]


@pytest.mark.parametrize("swapped", [0, 1])
def test_accounts_may_exchange_their_login_names(database: Path, swapped: int) -> None:
    load(database, account("ann", "one"), account("bob", "two"))
    lines = [account("ann", "two"), account("bob", "one")]
    load(database, *(reversed(lines) if swapped else lines))
    assert query(database, "SELECT id, uid FROM account ORDER BY id") == [("ann", "two"), ("bob", "one")]


@pytest.mark.parametrize("swapped", [0, 1])
def test_a_login_name_or_keys_that_become_free_may_be_taken_at_once(database: Path, swapped: int) -> None:
    load(database, account("ann", "one"), device("a", pk="p", dk="1"))
    lines = [account("ann", "two"), account("bob", "one"), device("a", pk="p", dk="2"), device("b", pk="p", dk="1")]
    load(database, *(reversed(lines) if swapped else lines))
    assert query(database, "SELECT id, uid FROM account ORDER BY id") == [("ann", "two"), ("bob", "one")]
    assert query(database, "SELECT id, dk FROM device ORDER BY id") == [("a", "2"), ("b", "1")]


# What is refused.

STOCK = [
    ANN,
    BOB,
    device("mine", pk="p", dk="d"),
    device("bobs", "bob"),
    device("bridge"),
    device("sub", bridge="bridge"),
    {"token": {"apikey": "ann", "at": "t"}},
]
BAD: list[tuple[str, Any, str]] = [
    ("not JSON", b"{", "truncated|malformed|JSON"),
    ("not UTF-8", b'{"account":{"apikey":"\xff","uid":"u"}}', "not UTF-8"),
    ("half a surrogate", b'{"account":{"apikey":"\\ud800","uid":"u"}}', ""),
    ("a NUL", b'{"account":{"apikey":"a\\u0000","uid":"u"}}', r"U\+0000"),
    ("nested too deep", b'{"device":{"params":' + b'{"a":' * 100_000, ""),
    ("not an object", [1], "object"),
    ("nothing", {}, "one of account, token, device, share"),
    ("something else", {"scene": {}}, "one of account, token, device, share"),
    ("two records", ANN | TOKEN, "one of account, token, device, share"),
    ("an account without uid", {"account": {"apikey": "a"}}, "uid"),
    ("an account with an empty uid", account("a", ""), "uid"),
    ("an account with a long uid", account("a", "u" * 65), "uid"),
    ("an account with an empty apikey", account("", "u"), "apikey"),
    ("a uid that is taken", account("eve", "ANN@example.ORG"), "another account"),
    ("a token of another account", {"token": {"apikey": "bob", "at": "t"}}, "at: the token is that of another account"),
    ("a token of nobody", {"token": {"apikey": "eve", "at": "x"}}, "apikey: there is no account eve"),
    ("a token that is empty", {"token": {"apikey": "ann", "at": ""}}, "at"),
    ("a token with a bad expiry", {"token": {"apikey": "ann", "at": "x", "expiresAt": "soon"}}, "expiresAt"),
    ("a device of nobody", device("d", "eve"), "owner: there is no account eve"),
    ("a device without key", {"device": {"deviceid": "d", "owner": "ann"}}, "devicekey"),
    ("a pk without dk", device("d", pk="p"), "pk and dk come together"),
    ("a dk without pk", device("d", dk="p"), "pk and dk come together"),
    ("keys that are taken", device("d", pk="p", dk="d"), "those of another device"),
    ("verified that is no boolean", device("d", verified=1), "verified"),
    ("params that are no object", device("d", params=[1]), "params"),
    ("params that are too large", device("d", params={"a": "x" * 16400}), "larger than 16384"),
    ("a bridge that is not there", device("d", bridge="none"), "bridge: there is no device none"),
    ("its own bridge", device("d", bridge="d"), "its own bridge"),
    ("a bridge of somebody else", device("d", bridge="bobs"), "another owner"),
    ("a bridge on a bridge", device("d", bridge="sub"), "has a bridge itself"),
    ("a bridge that gets a bridge", device("bridge", bridge="mine"), "bridge of sub"),
    ("a bridge that leaves its sub-devices behind", device("bridge", "bob"), "bridge of sub"),
    ("a share of nothing", {"share": {"device": "none", "sharee": "bob"}}, "device: there is no device none"),
    ("a share to nobody", {"share": {"device": "mine", "sharee": "eve"}}, "sharee: there is no account eve"),
    (
        "a share to the owner",
        {"share": {"device": "mine", "sharee": "ann"}},
        "sharee: a device cannot be shared with its owner",
    ),
    ("a grant beyond the year 9999", beyond(253_402_300_800_000), "sharingExpireAt"),
    ("a permit out of range", {"share": {"device": "mine", "sharee": "bob", "permit": 16}}, "permit"),
    ("a permit that is no int", {"share": {"device": "mine", "sharee": "bob", "permit": True}}, "permit"),
]


@pytest.mark.parametrize(("line", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_line_is_named_and_nothing_is_written(database: Path, line: Any, said: str) -> None:
    load(database, *STOCK)
    before = tables(database)
    good = account("carol", "carol@example.org")
    with pytest.raises(Trouble, match=f"^line 3: .*({said}).*; nothing was written$") as trouble:
        load(database, good, b"", line, account("dave", "dave@example.org"))
    assert "\n" not in str(trouble.value)
    assert tables(database) == before


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (account("a", "same"), account("b", "SAME"), "two accounts"),
        (device("a", pk="p9", dk="d9"), device("b", pk="p9", dk="d9"), "another device"),
        (device("a", bridge="b"), device("b", bridge="bridge"), "has a bridge itself"),
        (device("b", "bob"), device("a", bridge="b"), "another owner"),
    ],
)
def test_records_that_do_not_fit_each_other(database: Path, first: Any, second: Any, said: str) -> None:
    load(database, *STOCK)
    before = tables(database)
    with pytest.raises(Trouble, match=f"^line [12]: .*{said}"):
        load(database, first, second)
    assert tables(database) == before


def test_3_1_a_grant_may_end_with_the_year_9999(database: Path) -> None:
    load(database, *STOCK, beyond(253_402_300_799_999))
    assert query(database, "SELECT ends_ms FROM share") == [(253_402_300_799_999,)]


# Devices that go to somebody else, or leave their bridge.


def test_a_bridge_goes_to_another_owner_with_its_sub_devices(database: Path) -> None:
    load(database, *STOCK, {"share": {"device": "bridge", "sharee": "bob"}})
    load(database, account("carol", "carol"), device("bridge", "carol"), device("sub", "carol", bridge="bridge"))
    assert query(database, "SELECT owner_id FROM device WHERE id IN ('bridge', 'sub')") == [("carol",), ("carol",)]
    assert query(database, "SELECT state, cause FROM share") == [(State.ENDED, Cause.REMOVED)]


def test_a_grant_of_the_new_owner_comes_with_the_move(database: Path) -> None:
    load(database, *STOCK, {"share": {"device": "mine", "sharee": "bob"}})
    load(database, device("mine", "bob", pk="p", dk="d"), {"share": {"device": "mine", "sharee": "ann", "permit": 2}})
    assert query(database, "SELECT sharer_id, sharee_id, state, permit FROM share ORDER BY id") == [
        ("ann", "bob", State.ENDED, 0),
        ("bob", "ann", State.ACTIVE, 2),
    ]


def owners(id: str, owner: str = OWNER, **fields: Any) -> dict[str, Any]:
    """A device of the kit, as an import has it."""
    return device(id, owner, name=id, **fields)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server notices at once what an import has written."""
    monkeypatch.setattr(composition, "LEFT_EVERY_S", 0.02)


async def test_a_running_server_sees_new_rows_at_once(database: Path) -> None:
    async with server(database) as running, running.app(OWNER) as owner:
        assert (await owner.ask(share("new", "ann@example.org")))["error"] == 403
        await load_beside(database, ANN, TOKEN, owners("new"))
        async with running.wire() as ann:
            assert (await ann.online("ann", at="secret-of-ann"))["error"] == 0
            await owner.send(share("new", "ann@example.org", sequence="2"))
            offer = await ann.heard()
            assert (offer["deviceid"], offer["selfApikey"]) == ("new", "ann")
        await load_beside(database, {"share": {"device": "lamp", "sharee": GUEST}})
        assert (await owner.heard())["action"] == "updateShare"
        assert (await owner.ask(share(sequence="3")))["result"] == 4


async def test_a_waiting_sharer_and_grant_holders_hear_that_a_device_is_gone(database: Path) -> None:
    async with server(database) as running, running.app(OWNER) as owner, running.app(GUEST) as guest:
        await owner.send(share(sequence="1"))
        assert (await guest.heard())["action"] == "share"
        await load_beside(database, owners("lamp", OTHER))
        params = {"uid": UIDS[GUEST], "reason": "removed"}
        removed = {"action": "cancelShare", "apikey": OWNER, "deviceid": "lamp", "params": params}
        assert await owner.heard() == {
            "error": 0,
            "result": 3,
            "apikey": OWNER,
            "deviceid": "lamp",
            "sequence": "1",
        }
        assert await guest.heard() == removed
        assert await owner.heard() == removed
        assert (await owner.ask(share(sequence="2")))["error"] == 403
        async with running.app(OTHER) as other:
            await other.send(share(apikey=OTHER, sequence="3"))
            assert (await guest.heard())["apikey"] == OTHER
        await owner.silence()


async def test_3_3_a_grant_that_is_made_or_changed_is_pushed_to_both_sides(database: Path) -> None:
    async with server(database) as running, running.app(OWNER) as owner, running.app(GUEST) as guest:
        grant = {"device": "lamp", "sharee": GUEST}
        for more in ({"permit": 1}, {"permit": 5, "note": "厨房"}):
            await load_beside(database, {"share": grant | more})
            params = {"uid": UIDS[GUEST], "permit": 0, "note": ""} | more
            for wire in (owner, guest):
                assert await wire.heard() == {
                    "action": "updateShare",
                    "apikey": OWNER,
                    "deviceid": "lamp",
                    "params": params,
                }
        await load_beside(database, {"share": grant | more})  # as it is
        await load_beside(database, {"share": grant | more | {"sharingExpireAt": 4_000_000_000_000}})
        await load_beside(database, {"share": grant | {"permit": 2}})
        for wire in (owner, guest):
            assert (await wire.heard())["params"]["permit"] == 2


async def test_a_grant_ends_with_the_device_and_both_hear_of_it(database: Path) -> None:
    async with server(database) as running, running.app(OWNER) as owner, running.app(GUEST) as guest:
        await load_beside(database, {"share": {"device": "lamp", "sharee": GUEST}})
        for wire in (owner, guest):
            assert (await wire.heard())["action"] == "updateShare"
        await load_beside(database, owners("lamp", OTHER))
        for wire in (owner, guest):
            told = await wire.heard()
            assert (told["action"], told["params"]["reason"]) == ("cancelShare", "removed")
    assert query(database, "SELECT state, cause FROM share") == [(State.ENDED, Cause.REMOVED)]


async def test_a_sub_device_that_leaves_its_bridge_loses_what_it_had_through_it(database: Path) -> None:
    async with server(database) as running, running.app(OWNER) as owner, running.app(GUEST) as guest:
        await owner.send(share("bridge", sequence="1"))
        offer = await guest.heard()
        await owner.send(share("sub-1", sequence="2"))
        await owner.quiet()
        await load_beside(database, owners("sub-1"))
        told = await owner.heard()
        assert (told["deviceid"], told["sequence"], told["result"]) == ("sub-1", "2", 3)
        await guest.send(answer(offer, 2))
        told = await owner.heard()
        assert (told["deviceid"], told["result"]) == ("bridge", 2)
        assert (await owner.ask(share("sub-2", sequence="3")))["result"] == 4
        await owner.send(share("sub-1", sequence="4"))  # is not covered any more
        await owner.quiet()
    assert query(database, "SELECT state FROM share WHERE sequence = '4'") == [(State.OPEN,)]


async def test_rights_set_apart_end_with_the_bridge_that_is_left_but_a_share_of_its_own_stays(database: Path) -> None:
    async with server(database) as running, running.app(OWNER) as owner:
        await load_beside(database, {"share": {"device": "bridge", "sharee": GUEST}})
        await load_beside(database, {"share": {"device": "sub-2", "sharee": GUEST, "permit": 1}})
        assert [(await owner.heard())["deviceid"] for _ in range(2)] == ["bridge", "sub-2"]
        update = share("sub-1", action="updateShare", permit=7)
        assert (await owner.ask(update))["result"] == 2
        await load_beside(database, owners("sub-1"), owners("sub-2"))
        told = await owner.heard()
        assert (told["deviceid"], told["params"]["reason"]) == ("sub-1", "removed")
        await owner.silence()
    assert query(database, "SELECT device_id, state FROM share ORDER BY device_id") == [
        ("bridge", State.ACTIVE),
        ("sub-1", State.ENDED),
        ("sub-2", State.ACTIVE),
    ]


async def test_a_device_that_is_sold_loses_its_session_and_comes_back_as_the_buyers(database: Path) -> None:
    async with server(database) as running, running.app(OTHER) as buyer:
        async with running.device("lamp") as lamp, running.device("bridge") as bridge:
            await load_beside(database, owners("lamp", OTHER, devicekey="key-lamp"))
            assert await lamp.closed() == 4401
            await bridge.silence()
        async with running.device("lamp"):
            online = await buyer.heard()
            assert (online["deviceid"], online["params"]) == ("lamp", {"online": True})


async def test_a_device_that_gets_a_new_devicekey_loses_its_session_and_needs_the_new_key(database: Path) -> None:
    async with server(database) as running, running.device("lamp") as lamp:
        await load_beside(database, owners("lamp", devicekey="another"))
        assert await lamp.closed() == 4401
        async with running.wire() as wire:
            assert (await wire.ask(register("lamp")))["error"] == 401
        async with running.wire() as wire:
            assert (await wire.ask(register("lamp", apikey="another")))["error"] == 0


async def test_a_device_that_is_imported_again_with_another_name_keeps_its_session(database: Path) -> None:
    async with server(database) as running, running.device("lamp") as lamp, running.device("bridge") as bridge:
        await load_beside(database, device("lamp", OWNER, name="Porch", devicekey="key-lamp"))
        await load_beside(database, owners("bridge", devicekey="another"))
        assert await bridge.closed() == 4401  # so whatever was left before has been told too
        await lamp.silence()
    assert query(database, "SELECT name FROM device WHERE id = 'lamp'") == [("Porch",)]


async def test_a_grant_that_ends_soon_ends_beside_a_running_server_too(database: Path) -> None:
    async with server(database) as running, running.app(GUEST) as guest:
        ends_ms = time.time_ns() // 1_000_000 + 100
        await load_beside(database, {"share": {"device": "lamp", "sharee": GUEST, "sharingExpireAt": ends_ms}})
        assert (await guest.heard())["action"] == "updateShare"
        assert (await guest.heard())["params"] == {"uid": UIDS[GUEST], "reason": "expired"}


async def test_the_sessions_of_a_token_go_on_when_another_is_minted_by_an_import(database: Path) -> None:
    """It is superseded with the next handshake; what is revoked is closed, and an import revokes nothing."""
    async with server(database) as running, running.app(OWNER) as owner:
        await load_beside(database, {"token": {"apikey": OWNER, "at": "newer"}})
        await owner.quiet()


# As a process.


def test_it_says_what_was_imported(database: Path) -> None:
    ended = run("import", written(database, EVERYTHING), path=database)
    assert (ended.returncode, ended.stdout) == (0, "imported 2 accounts, 1 token, 1 device, 1 share\n")
    assert "Traceback" not in ended.stderr
    assert ended.stderr == ""  # the bar is for a terminal


def test_a_bad_file_is_one_line_and_exit_code_2(database: Path) -> None:
    fill(database)
    ended = run("import", written(database, [ANN, b"{"]), path=database, forked=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.strip().startswith("sharesrv: line 2: ")
    assert ended.stderr.strip().count("\n") == 0
    assert query(database, "SELECT count(*) FROM account") == [(3,)]


def test_a_file_that_is_not_there_is_one_line_and_exit_code_2(database: Path) -> None:
    for file, said in (
        (database.with_name("none.jsonl"), "No such file or directory"),
        (database.parent, "is a folder"),
    ):
        ended = run("import", file, path=database)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.strip() == f"sharesrv: {file}: {said}"
