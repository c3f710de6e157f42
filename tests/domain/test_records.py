"""What operators and imports write, and what goes with what they remove (PROTOCOL 3.3, 4)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sharesrv.domain.draft import Command
from sharesrv.domain.facts import Device
from sharesrv.domain.outcome import ComesDue, DeviceDisowned, DeviceMoved, Done, Ended, Settled, TokenRevoked
from sharesrv.domain.record_checks import AccountRecord, DeviceRecord, GrantRecord, Record, TokenRecord, Unfit
from sharesrv.domain.records import (
    ChangeAccount,
    ChangeDevice,
    DeleteAccount,
    DeleteDevice,
    RevokeToken,
    WriteRecords,
)
from sharesrv.domain.share import Cause, Origin, State
from sharesrv.errors import Refusal
from tests.world import World, came_to

UNFIT = Refusal.UNFIT


def device(id: str, owner: str = "owner", **fields: Any) -> DeviceRecord:
    defaults = {"name": id, "bridge_id": None, "verified": True, "shareable": True, "key_digest": "k"}
    return DeviceRecord(Device(id, owner, **(defaults | fields)))


def write(world: World, *records: Record, imported: bool = False) -> object:
    """The reply to a command with these records, in this order."""
    kinds: dict[str, list[Any]] = {"accounts": [], "tokens": [], "devices": [], "grants": []}
    names = {AccountRecord: "accounts", TokenRecord: "tokens", DeviceRecord: "devices", GrantRecord: "grants"}
    for record in records:
        kinds[names[type(record)]].append(record)
    return world.do(WriteRecords(**kinds, imported=imported))


def test_everything_at_once_in_any_order() -> None:
    world = World()
    records: list[Record] = [
        GrantRecord("s", "ann", 5, "n", 0),
        device("s", "bob", bridge_id="b"),
        device("b", "bob"),
        TokenRecord("ann", "t1", 0),
        TokenRecord("ann", "t2", 9),
        AccountRecord("ann", "Ann@example.org", "Ann"),
        AccountRecord("bob", "bob@example.org", ""),
    ]
    assert isinstance(write(world, *records), Done)
    assert world.store.accounts["ann"].token_serial == 2
    assert [world.store.tokens[name].serial for name in ("t1", "t2")] == [1, 2]
    assert world.store.devices["s"].bridge_id == "b"
    grant = world.share("s")
    assert (grant.origin, grant.state, grant.sharer_id, grant.sharee_id) == (Origin.IMPORT, State.ACTIVE, "bob", "ann")
    assert (grant.permit, grant.note, grant.told) == (5, "n", True)


BAD: list[tuple[str, list[Record], int, str]] = [
    ("a login of two", [AccountRecord("a", "x", ""), AccountRecord("b", "X", "")], 1, "stands for two accounts"),
    ("a login that is taken", [AccountRecord("a", "GUEST@example.org", "")], 0, "that of another account"),
    ("a token of nobody", [TokenRecord("nobody", "t", 0)], 0, "no account nobody"),
    ("a token of another", [TokenRecord("guest", "token of owner", 0)], 0, "that of another account"),
    ("a token of two", [TokenRecord("guest", "t", 0), TokenRecord("owner", "t", 0)], 1, "that of another account"),
    ("a device of nobody", [device("d", "nobody")], 0, "no account nobody"),
    ("a bridge that is not there", [device("d", bridge_id="none")], 0, "no device none"),
    ("a bridge of another", [device("d", "guest", bridge_id="bridge")], 0, "has another owner"),
    ("a bridge on a bridge", [device("d", bridge_id="sub-1")], 0, "has a bridge itself"),
    ("a bridge that gets one", [device("bridge", bridge_id="lamp")], 0, "bridge of sub-1"),
    ("a bridge sold alone", [device("bridge", "guest")], 0, "bridge of sub-1"),
    ("keys that are taken", [device("d", pk="p", dk="lamp")], 0, "those of another device"),
    ("keys of two", [device("d", pk="p", dk="x"), device("e", pk="p", dk="x")], 1, "those of another device"),
    ("a grant on nothing", [GrantRecord("none", "guest", 0, "", 0)], 0, "no device none"),
    ("a grant to nobody", [GrantRecord("lamp", "nobody", 0, "", 0)], 0, "no account nobody"),
    ("a grant to the owner", [GrantRecord("lamp", "owner", 0, "", 0)], 0, "its owner"),
]


@pytest.mark.parametrize(("records", "which", "reason"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_record_that_does_not_fit_is_named_and_nothing_is_written(
    records: list[Record], which: int, reason: str
) -> None:
    world = World()
    world.device("lamp", pk="p", dk="lamp")
    before = (dict(world.store.accounts), dict(world.store.tokens), dict(world.store.devices))
    reply = write(world, AccountRecord("new", "new@example.org", ""), *records)
    assert isinstance(reply, Unfit)
    assert reply.record is records[which]
    assert reason in reply.reason
    assert (world.store.accounts, world.store.tokens, world.store.devices) == before


def test_accounts_may_exchange_their_login_names_and_devices_their_keys() -> None:
    world = World()
    lamp, fan = world.device("lamp", pk="p", dk="1"), world.device("fan", pk="p", dk="2")
    guest, other = world.store.accounts["guest"], world.store.accounts["other"]
    records: list[Record] = [
        AccountRecord("guest", other.uid, ""),
        AccountRecord("other", guest.uid, ""),
        DeviceRecord(msgspec.structs.replace(lamp, dk="2")),
        DeviceRecord(msgspec.structs.replace(fan, dk="1")),
    ]
    assert isinstance(write(world, *records), Done)
    assert world.store.accounts["guest"].uid == other.uid
    assert world.store.devices["fan"].dk == "1"


def test_of_two_records_for_one_thing_the_later_counts() -> None:
    world = World()
    write(world, device("d", name="old"), device("d", name="new"))
    write(world, AccountRecord("a", "1", ""), AccountRecord("a", "2", ""))
    assert (world.store.devices["d"].name, world.store.accounts["a"].uid) == ("new", "2")


def test_a_known_token_stays_as_it_is() -> None:
    world = World()
    before = dict(world.store.tokens)
    write(world, TokenRecord("guest", "token of guest", 99), TokenRecord("guest", "token of guest", 98))
    assert world.store.tokens == before
    assert world.store.accounts["guest"].token_serial == 1


@pytest.mark.parametrize("imported", [False, True])
def test_a_device_that_is_sold_ends_its_shares_and_has_to_come_again(imported: bool) -> None:
    world = World()
    world.granted()
    world.do(world.request(uid="other@example.org", sequence="2"))
    world.notices.clear()
    assert isinstance(write(world, device("lamp", "other", key_digest=""), imported=imported), Done)
    assert world.states("lamp") == [State.ENDED, State.WITHDRAWN]
    assert [share.cause for share in world.shares("lamp")] == [Cause.REMOVED] * 2
    assert [type(notice) for notice in world.heard_by("guest")] == [Ended]
    assert [type(notice) for notice in world.heard_by("owner")] == [Ended, Settled, Ended]
    world.heard_by("other")
    assert world.notices == [DeviceDisowned("lamp"), DeviceMoved("lamp")]


def test_what_was_overdue_when_a_device_is_sold_has_expired() -> None:
    world = World()
    grant = world.stored("guest", ends_ms=world.clock.now_ms())
    write(world, device("lamp", "other"))
    assert world.store.shares[grant.id].cause is Cause.EXPIRED


def test_another_devicekey_closes_the_old_session() -> None:
    world = World()
    lamp = world.device("lamp", key_digest="old")
    world.do(ChangeDevice(device_id="lamp", fields={"key_digest": "new"}))
    assert world.notices == [DeviceDisowned("lamp")]
    assert world.store.devices["lamp"] == msgspec.structs.replace(lamp, key_digest="new")


def test_a_sub_device_that_leaves_its_bridge_loses_what_it_had_through_it() -> None:
    world = World()
    world.granted("bridge")
    world.do(world.update("sub-1", permit=3))
    own = world.stored("other", "sub-1")
    world.notices.clear()
    write(world, device("sub-1", key_digest=""))
    assert [share.state for share in world.shares("sub-1")] == [State.ENDED, State.ACTIVE]
    assert world.store.shares[own.id].state is State.ACTIVE
    assert world.notices[-2:] == [DeviceMoved("sub-1"), DeviceMoved("bridge")]


def test_a_new_sub_device_may_be_online_through_its_bridge() -> None:
    world = World()
    write(world, device("sub-3", bridge_id="bridge"))
    assert world.notices == [DeviceMoved("sub-3")]


def test_a_grant_that_is_there_is_changed_and_one_apart_is_not_meant() -> None:
    world = World()
    grant = world.granted()
    write(world, GrantRecord("lamp", "guest", 9, "new", 0))
    assert [(share.id, share.permit, share.note) for share in world.shares("lamp")] == [(grant.id, 9, "new")]
    world.granted("bridge", sequence="2")
    world.do(world.update("sub-1", permit=3))
    write(world, GrantRecord("sub-1", "guest", 1, "", 0))
    assert [share.origin for share in world.shares("sub-1")] == [Origin.APART, Origin.IMPORT]


def test_the_first_end_of_the_grants_is_told_to_the_alarm() -> None:
    world = World()
    write(world, GrantRecord("lamp", "guest", 0, "", 900), GrantRecord("lamp", "other", 0, "", 800))
    assert world.notices == [ComesDue(800)]


def test_changes_of_different_fields_at_once_are_both_kept() -> None:
    world = World()
    lamp = world.store.devices["lamp"]
    for fields in ({"name": "Porch"}, {"shareable": False}):
        assert isinstance(world.do(ChangeDevice(device_id="lamp", fields=fields)), Done)
    assert world.store.devices["lamp"] == msgspec.structs.replace(lamp, name="Porch", shareable=False)
    for change in (ChangeAccount(account_id="guest", uid="g"), ChangeAccount(account_id="guest", nickname="")):
        world.do(change)
    assert (world.store.accounts["guest"].uid, world.store.accounts["guest"].nickname) == ("g", "")


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        (ChangeAccount(account_id="nobody"), Refusal.NO_SUCH_ACCOUNT),
        (ChangeAccount(account_id="guest", uid="OTHER@example.org"), UNFIT),
        (ChangeDevice(device_id="none", fields={}), Refusal.NO_SUCH_DEVICE),
        (ChangeDevice(device_id="sub-1", fields={"owner_id": "guest"}), UNFIT),
        (RevokeToken(account_id="nobody", token_id="x"), Refusal.NO_SUCH_ACCOUNT),
        (RevokeToken(account_id="guest", token_id="token of owner"), Refusal.NO_SUCH_TOKEN),
        (DeleteAccount(account_id="nobody"), Refusal.NO_SUCH_ACCOUNT),
        (DeleteDevice(device_id="none"), Refusal.NO_SUCH_DEVICE),
    ],
)
def test_what_is_not_there_or_does_not_fit(command: Command, refusal: Refusal) -> None:
    assert came_to(World().do(command)) is refusal


def test_a_token_that_is_revoked_is_gone_and_its_connections_are_closed() -> None:
    world = World()
    assert isinstance(world.do(RevokeToken(account_id="guest", token_id="token of guest"[:16])), Done)
    assert "token of guest" not in world.store.tokens
    assert world.notices == [TokenRevoked("guest", "token of guest"[:16])]


def test_a_bridge_that_is_deleted_leaves_its_sub_devices_alone() -> None:
    world = World()
    world.granted("bridge")
    world.do(world.update("sub-1", permit=3))
    own = world.stored("other", "sub-2")
    world.notices.clear()
    assert isinstance(world.do(DeleteDevice(device_id="bridge")), Done)
    assert "bridge" not in world.store.devices
    assert [world.store.devices[id].bridge_id for id in ("sub-1", "sub-2")] == [None, None]
    ended = [share.state for share in world.shares() if share.id != own.id]
    assert ended == [State.ENDED, State.ENDED]
    assert world.store.shares[own.id].state is State.ACTIVE
    assert world.notices[-3:] == [DeviceDisowned("bridge"), DeviceMoved("sub-1"), DeviceMoved("sub-2")]


@pytest.mark.parametrize("account", ["owner", "guest"])
def test_an_account_that_is_deleted_takes_all_with_it(account: str) -> None:
    world = World()
    for name in ("lamp", "bridge"):
        world.granted(name, sequence=name)
    world.do(world.request(uid="other@example.org", sequence="2"))
    world.notices.clear()
    assert isinstance(world.do(DeleteAccount(account_id=account)), Done)
    assert account not in world.store.accounts
    assert f"token of {account}" not in world.store.tokens
    assert [device.id for device in world.store.devices.values() if device.owner_id == account] == []
    live = [share for share in world.shares() if share.state < State.MERGED]
    assert [share.sharee_id for share in live] == ([] if account == "owner" else ["other"])
    assert world.notices[-1] == TokenRevoked(account)


def test_a_device_brings_its_state_and_the_same_again_changes_nothing() -> None:
    world = World()
    lamp = world.store.devices["lamp"]
    record = DeviceRecord(lamp, '{"switch":"on"}')
    guest = world.store.accounts["guest"]
    write(world, record, AccountRecord(guest.id, guest.uid, guest.nickname))
    assert world.store.states["lamp"] == '{"switch":"on"}'
    assert world.decided(WriteRecords(devices=[DeviceRecord(lamp)])).changes == []
    assert world.notices == []


def test_an_import_does_not_ask_who_hears_of_each_new_sub_device() -> None:
    world = World()
    write(world, device("sub-3", bridge_id="bridge"), imported=True)
    assert world.notices == []


def test_a_bridge_that_is_written_with_its_sub_devices_is_sold_with_them() -> None:
    world = World()
    records = [device(id, "guest", bridge_id="bridge") for id in ("sub-1", "sub-2")]
    assert isinstance(write(world, *records, device("bridge", "guest")), Done)
    assert {world.store.devices[id].owner_id for id in ("bridge", "sub-1", "sub-2")} == {"guest"}


def test_a_token_for_an_account_that_is_there_supersedes_its_older_ones() -> None:
    world = World()
    write(world, TokenRecord("guest", "newer", 7), TokenRecord("guest", "newest", 0))
    assert [world.store.tokens[name].serial for name in ("newer", "newest")] == [2, 3]
    assert world.store.accounts["guest"].token_serial == 3
