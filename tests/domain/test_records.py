"""What operators and imports write, and what goes with what they remove (PROTOCOL 3.3, 4)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sharesrv.domain.draft import Command
from sharesrv.domain.outcome import (
    ComesDue,
    DeviceDisowned,
    DeviceMoved,
    Done,
    Ended,
    GrantChanged,
    Notice,
    PutDevice,
    RemoveDevice,
    Reply,
    Settled,
    TokenRevoked,
)
from sharesrv.domain.record_checks import AccountRecord, DeviceRecord, GrantRecord, Record, TokenRecord
from sharesrv.domain.records import (
    ChangeAccount,
    ChangeDevice,
    DeleteAccount,
    DeleteDevice,
    RevokeToken,
    WriteRecords,
)
from sharesrv.domain.share import Cause, Channel, Origin, State
from sharesrv.domain.source import Account, Device, Token
from sharesrv.errors import Refusal
from tests.world import World, came_to

UNFIT = Refusal.UNFIT
GUEST_UID = "Guest@Example.org"


def device(id: str, owner: str = "owner", **fields: Any) -> DeviceRecord:
    defaults = {"name": id, "bridge_id": None, "verified": True, "shareable": True, "key_digest": "k"}
    return DeviceRecord(Device(id, owner, **(defaults | fields)))


def write(world: World, *records: Record, imported: bool = False) -> Reply | None:
    """The reply to a command with these records, in this order."""
    kinds: dict[str, list[Any]] = {"accounts": [], "tokens": [], "devices": [], "grants": []}
    names = {AccountRecord: "accounts", TokenRecord: "tokens", DeviceRecord: "devices", GrantRecord: "grants"}
    for record in records:
        kinds[names[type(record)]].append(record)
    return world.do(WriteRecords(**kinds, imported=imported))


def test_records_of_all_kinds_are_written_at_once() -> None:
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
    assert {id: world.store.accounts[id].uid for id in ("guest", "other")} == {"guest": other.uid, "other": guest.uid}
    assert {id: world.store.devices[id].dk for id in ("lamp", "fan")} == {"lamp": "2", "fan": "1"}


def test_of_two_records_for_one_thing_the_later_counts() -> None:
    world = World()
    write(world, GrantRecord("lamp", "guest", 1, "old", 0), GrantRecord("lamp", "guest", 2, "new", 0))
    assert [(share.permit, share.note) for share in world.shares()] == [(2, "new")]
    write(world, device("d", name="old"), device("d", name="new"))
    write(world, AccountRecord("a", "1", ""), AccountRecord("a", "2", ""))
    assert (world.store.devices["d"].name, world.store.accounts["a"].uid) == ("new", "2")


def test_a_known_token_stays_as_it_is() -> None:
    world = World()
    before = dict(world.store.tokens)
    write(world, TokenRecord("guest", "token of guest", 99), TokenRecord("guest", "token of guest", 98))
    assert world.store.tokens == before
    assert world.store.accounts["guest"].token_serial == 1


def test_a_new_token_that_is_named_twice_is_written_once() -> None:
    world = World()
    write(world, TokenRecord("guest", "t", 5), TokenRecord("guest", "t", 9))
    assert (world.store.tokens["t"].serial, world.store.tokens["t"].expires_ms) == (2, 5)
    assert world.store.accounts["guest"].token_serial == 2


def test_an_account_that_is_written_again_keeps_its_tokens() -> None:
    world = World()
    write(world, AccountRecord("guest", "g", "G"))
    assert world.store.accounts["guest"] == Account("guest", "g", "G", 1)
    assert world.store.tokens["token of guest"].serial == 1
    write(world, AccountRecord("guest", "g", "H"), TokenRecord("guest", "t", 0))
    assert world.store.accounts["guest"] == Account("guest", "g", "H", 2)
    assert world.store.tokens["t"].serial == 2


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


def test_a_code_and_what_is_barred_end_with_the_device_that_is_sold() -> None:
    world = World()
    world.granted("bridge")
    world.do(world.cancel("sub-1"))
    world.row(State.OPEN, "sub-1", origin=Origin.CODE, sharee_id=None)
    world.notices.clear()
    write(world, device("sub-1", "other"))
    assert world.states("sub-1") == [State.ENDED, State.WITHDRAWN]
    assert world.states("bridge") == [State.ACTIVE]
    assert world.heard_by("owner") == [Ended("owner", "owner", "sub-1", "guest@example.org", Cause.REMOVED)]
    assert world.notices == [DeviceDisowned("sub-1"), DeviceMoved("sub-1"), DeviceMoved("bridge")]


def test_a_grant_that_comes_with_a_sold_device_is_one_of_its_new_owner() -> None:
    world = World()
    old = world.granted()
    write(world, device("lamp", "other"), GrantRecord("lamp", "guest", 5, "", 0))
    ended, made = world.shares("lamp")
    assert (ended.id, ended.state, ended.cause) == (old.id, State.ENDED, Cause.REMOVED)
    assert (made.state, made.sharer_id, made.sharee_id, made.permit) == (State.ACTIVE, "other", "guest", 5)
    assert made.asked.owner_uid == "other@example.org"


def test_what_was_overdue_when_a_device_is_sold_has_expired() -> None:
    world = World()
    grant = world.stored("guest", ends_ms=world.clock.now_ms())
    write(world, device("lamp", "other"))
    assert world.store.shares[grant.id].cause is Cause.EXPIRED


def test_another_devicekey_closes_the_connection_and_ends_no_share() -> None:
    world = World()
    lamp = world.device("lamp", key_digest="old")
    world.granted()
    world.do(ChangeDevice(device_id="lamp", fields={"key_digest": "new"}))
    assert world.notices == [DeviceDisowned("lamp", keeps_owner=True)]
    assert world.store.devices["lamp"] == msgspec.structs.replace(lamp, key_digest="new")
    assert world.states() == [State.ACTIVE]
    world.notices.clear()
    write(world, device("lamp", key_digest="newer"))
    assert world.notices == [DeviceDisowned("lamp", keeps_owner=True)]


def test_a_device_that_gets_another_owner_ends_its_shares_by_whatever_command() -> None:
    world = World()
    world.granted()
    world.do(ChangeDevice(device_id="lamp", fields={"owner_id": "other"}))
    assert world.states() == [State.ENDED]
    assert world.store.devices["lamp"].owner_id == "other"


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


def test_a_request_that_waits_for_a_bridges_offer_is_withdrawn_when_its_sub_device_leaves() -> None:
    world = World()
    world.do(world.request("bridge"))
    world.do(world.request("sub-1", sequence="2"))
    world.do(world.request("sub-2", sequence="3"))
    world.notices.clear()
    write(world, device("sub-1", key_digest="", bridge_id="lamp"))
    assert world.states() == [State.OPEN, State.WITHDRAWN, State.JOINED]
    assert world.heard_by("owner") == [Settled("owner", world.share("sub-1"))]
    assert world.notices == [DeviceMoved("sub-1"), DeviceMoved("lamp"), DeviceMoved("bridge")]


def test_a_sub_device_that_is_written_with_its_bridge_keeps_what_it_had_through_it() -> None:
    world = World()
    world.granted("bridge")
    world.do(world.update("sub-1", permit=3))
    world.notices.clear()
    write(world, device("sub-1", name="new", key_digest="", bridge_id="bridge"))
    assert world.store.devices["sub-1"].name == "new"
    assert world.states("sub-1") == [State.ACTIVE]
    assert world.notices == []


def test_a_new_sub_device_may_be_online_through_its_bridge() -> None:
    world = World()
    write(world, device("sub-3", bridge_id="bridge"))
    assert world.notices == [DeviceMoved("sub-3")]


def test_a_grant_that_is_there_is_changed() -> None:
    world = World()
    grant = world.granted()
    write(world, GrantRecord("lamp", "guest", 9, "new", 0))
    assert [(share.id, share.permit, share.note) for share in world.shares("lamp")] == [(grant.id, 9, "new")]


@pytest.mark.parametrize("imported", [False, True])
def test_4_a_grant_on_a_sub_device_that_was_set_apart_takes_the_place_of_its_rights(imported: bool) -> None:
    world = World()
    world.granted("bridge", permit=3)
    world.do(world.update("sub-1", permit=15))
    world.notices.clear()
    write(world, GrantRecord("sub-1", "guest", 1, "", 0), imported=imported)
    apart, grant = world.shares("sub-1")
    assert (apart.origin, apart.state, apart.cause) == (Origin.APART, State.ENDED, Cause.REPLACED)
    assert (grant.origin, grant.state, grant.permit) == (Origin.IMPORT, State.ACTIVE, 1)
    assert world.notices == [told(account, 1, "", "sub-1") for account in ("guest", "owner")]


def test_a_grant_that_is_changed_gets_its_permit_its_note_and_its_end_and_keeps_the_rest() -> None:
    world = World()
    before = world.granted(permit=3, note="old")
    world.clock.advance(ms=7)
    ends_ms = world.clock.now_ms() + 50
    write(world, GrantRecord("lamp", "guest", 9, "new", ends_ms))
    changed = {"permit": 9, "note": "new", "ends_ms": ends_ms, "updated_ms": world.clock.now_ms(), "version": 3}
    assert world.shares() == [msgspec.structs.replace(before, **changed)]


def test_of_grants_that_coexist_the_oldest_is_changed() -> None:
    world = World()
    grants = [world.row(State.ACTIVE, origin=Origin.CODE, permit=1) for _ in range(2)]
    write(world, GrantRecord("lamp", "guest", 8, "", 0))
    assert [(share.id, share.permit) for share in world.shares()] == [(grants[0].id, 8), (grants[1].id, 1)]


def test_beside_a_grant_that_is_over_another_is_made() -> None:
    world = World()
    grant = world.stored("guest", ends_ms=world.clock.now_ms())
    write(world, GrantRecord("lamp", "guest", 8, "", 0))
    assert world.store.shares[grant.id].cause is Cause.EXPIRED
    assert [(share.state, share.permit) for share in world.shares()] == [(State.ENDED, 0), (State.ACTIVE, 8)]


@pytest.mark.parametrize(("ends", "told"), [((900, 800), [ComesDue(800)]), ((0, 900), [ComesDue(900)]), ((0, 0), [])])
@pytest.mark.parametrize("there", [False, True])
def test_the_earliest_end_of_the_grants_is_told(ends: tuple[int, int], told: list[Notice], there: bool) -> None:
    world = World()
    for account in ("guest", "other") if there else ():
        world.stored(account)
    write(world, GrantRecord("lamp", "guest", 0, "", ends[0]), GrantRecord("lamp", "other", 0, "", ends[1]))
    assert [notice for notice in world.notices if not isinstance(notice, GrantChanged)] == told


def told(account: str, permit: int, note: str, device: str = "lamp") -> GrantChanged:
    return GrantChanged(account, "owner", device, GUEST_UID, permit, note)


@pytest.mark.parametrize("imported", [False, True])
def test_3_3_a_grant_that_is_made_or_changed_is_told_to_both_sides(imported: bool) -> None:
    world = World()
    for permit, note in ((1, "one"), (1, "two"), (3, "two")):
        write(world, GrantRecord("lamp", "guest", permit, note, 0), imported=imported)
        assert world.notices == [told("guest", permit, note), told("owner", permit, note)]
        world.notices.clear()


def test_3_3_what_coexists_with_a_grant_that_is_written_adds_to_the_permit_that_is_told() -> None:
    world = World()
    for permit in (1, 2):
        world.row(State.ACTIVE, origin=Origin.CODE, permit=permit)
    write(world, GrantRecord("lamp", "guest", 8, "", 0))
    assert world.heard_by("guest") == [told("guest", 10, "")]


def test_a_grant_that_is_written_as_it_is_changes_nothing_and_a_new_end_is_not_told() -> None:
    world = World()
    grant = world.stored("guest", permit=3, note="as it is")
    write(world, GrantRecord("lamp", "guest", 3, "as it is", 0))
    assert (world.shares(), world.store.journal, world.notices) == ([grant], [], [])
    ends_ms = world.clock.now_ms() + 50
    write(world, GrantRecord("lamp", "guest", 3, "as it is", ends_ms))
    assert (world.share().ends_ms, world.notices) == (ends_ms, [ComesDue(ends_ms)])


@pytest.mark.parametrize(("imported", "channel"), [(False, Channel.ADMIN), (True, Channel.IMPORT)])
def test_the_journal_knows_whether_an_operator_or_an_import_wrote(imported: bool, channel: Channel) -> None:
    world = World()
    world.stored("guest")
    write(world, GrantRecord("lamp", "guest", 1, "", 0), GrantRecord("lamp", "other", 1, "", 0), imported=imported)
    acts = [(put.old is None, put.by, put.channel) for put in world.store.journal]
    assert acts == [(False, channel.word, channel), (True, channel.word, channel)]


def test_changes_of_different_fields_by_two_operators_are_both_kept() -> None:
    world = World()
    lamp = world.store.devices["lamp"]
    for fields in ({"name": "Porch"}, {"shareable": False}):
        assert isinstance(world.do(ChangeDevice(device_id="lamp", fields=fields)), Done)
    assert world.store.devices["lamp"] == msgspec.structs.replace(lamp, name="Porch", shareable=False)
    for account_fields in ({"nickname": ""}, {"uid": "g"}, {"nickname": "N"}):
        assert isinstance(world.do(ChangeAccount(account_id="guest", **account_fields)), Done)
        assert world.store.accounts["guest"].nickname == account_fields.get("nickname", "")
    assert world.store.accounts["guest"] == Account("guest", "g", "N", 1)


@pytest.mark.parametrize(
    ("command", "comes_to"),
    [
        (ChangeAccount(account_id="nobody"), Refusal.NO_SUCH_ACCOUNT),
        (ChangeAccount(account_id="guest", uid="OTHER@example.org"), UNFIT),
        (ChangeAccount(account_id="guest", uid="GUEST@example.org"), Done),
        (ChangeAccount(account_id="guest"), Done),
        (ChangeDevice(device_id="none", fields={}), Refusal.NO_SUCH_DEVICE),
        (ChangeDevice(device_id="sub-1", fields={"owner_id": "guest"}), UNFIT),
        (ChangeDevice(device_id="sub-1", fields={"owner_id": "guest", "bridge_id": None}), Done),
        (ChangeDevice(device_id="lamp", fields={"owner_id": "nobody"}), UNFIT),
        (ChangeDevice(device_id="bridge", fields={"bridge_id": "lamp"}), UNFIT),
        (RevokeToken(account_id="nobody", token_id="x"), Refusal.NO_SUCH_ACCOUNT),
        (RevokeToken(account_id="guest", token_id="token of owner"), Refusal.NO_SUCH_TOKEN),
        (DeleteAccount(account_id="nobody"), Refusal.NO_SUCH_ACCOUNT),
        (DeleteDevice(device_id="none"), Refusal.NO_SUCH_DEVICE),
    ],
)
def test_a_command_about_what_is_not_there_or_does_not_fit_is_refused(command: Command, comes_to: object) -> None:
    assert came_to(World().do(command)) is comes_to


def test_a_token_that_is_revoked_is_gone_and_its_connections_are_closed() -> None:
    world = World()
    assert isinstance(world.do(RevokeToken(account_id="guest", token_id="token of guest"[:16])), Done)
    assert "token of guest" not in world.store.tokens
    assert world.notices == [TokenRevoked("guest", "token of guest"[:16])]
    assert came_to(world.do(world.connect("guest"))) is Refusal.UNKNOWN_TOKEN


def test_a_token_that_is_revoked_makes_no_older_one_good_again() -> None:
    world = World()
    write(world, TokenRecord("guest", "newer", 0))
    assert isinstance(world.do(RevokeToken(account_id="guest", token_id="newer")), Done)
    assert world.store.tokens["token of guest"] == Token("token of guest", "guest", 1, 0)
    assert world.store.accounts["guest"].token_serial == 2
    assert came_to(world.do(world.connect("guest"))) is Refusal.SUPERSEDED


def test_a_device_that_is_deleted_ends_its_shares_and_tells_both_sides() -> None:
    world = World()
    world.store.states["lamp"] = "{}"
    world.granted()
    world.do(world.request(uid="other@example.org", sequence="2"))
    world.row(State.OPEN, origin=Origin.CODE, sharee_id=None)
    overdue = world.stored("other", ends_ms=world.clock.now_ms())
    world.notices.clear()
    assert isinstance(world.do(DeleteDevice(device_id="lamp")), Done)
    assert world.states() == [State.ENDED, State.WITHDRAWN, State.WITHDRAWN, State.ENDED]
    assert world.store.shares[overdue.id].cause is Cause.EXPIRED
    assert [share.cause for share in world.shares()[:3]] == [Cause.REMOVED] * 3
    assert world.heard_by("guest") == [Ended("guest", "owner", "lamp", GUEST_UID, Cause.REMOVED)]
    assert Settled("owner", world.shares()[1]) in world.heard_by("owner")
    assert ("lamp" in world.store.devices, world.store.states) == (False, {})
    assert {(put.by, put.channel) for put in world.store.journal if put.new.cause is Cause.REMOVED} == {
        ("admin", Channel.ADMIN)
    }


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
    gone = [notice for notice in world.notices if isinstance(notice, DeviceDisowned | DeviceMoved)]
    owned = ["sub-1", "sub-2", "bridge", "lamp"] if account == "owner" else []
    assert sorted(gone, key=repr) == sorted(map(DeviceDisowned, owned), key=repr)


def test_deleting_an_account_answers_the_sharers_that_wait_for_it() -> None:
    world = World()
    world.do(world.request())
    world.notices.clear()
    world.do(DeleteAccount(account_id="guest"))
    assert (world.share().state, world.share().cause) == (State.WITHDRAWN, Cause.REMOVED)
    assert (world.store.journal[-1].by, world.store.journal[-1].channel) == ("admin", Channel.ADMIN)
    assert world.heard_by("owner") == [
        Settled("owner", world.share()),
        Ended("owner", "owner", "lamp", GUEST_UID, Cause.REMOVED),
    ]


def test_an_account_that_is_deleted_leaves_the_others_what_is_theirs() -> None:
    world = World()
    world.device("fan", owner_id="other")
    grant = world.stored("guest", "fan", sharer_id="other")
    world.granted()
    world.do(DeleteAccount(account_id="owner"))
    assert set(world.store.accounts) == {"guest", "other"}
    assert set(world.store.tokens) == {"token of guest", "token of other"}
    assert set(world.store.devices) == {"fan"}
    assert world.store.shares[grant.id] == grant


def test_a_device_brings_its_state_and_the_same_again_changes_nothing() -> None:
    world = World()
    lamp = world.store.devices["lamp"]
    guest = world.store.accounts["guest"]
    write(world, DeviceRecord(lamp, '{"switch":"on"}'))
    assert world.store.states["lamp"] == '{"switch":"on"}'
    again = WriteRecords(
        accounts=[AccountRecord(guest.id, guest.uid, guest.nickname)],
        tokens=[TokenRecord("guest", "token of guest", 0)],
        devices=[DeviceRecord(lamp)],
    )
    assert world.decided(again).changes == []
    assert world.notices == []


def test_of_a_new_device_without_a_bridge_nobody_is_told() -> None:
    world = World()
    write(world, device("fan"))
    assert world.notices == []


def test_bridges_are_written_before_their_sub_devices_and_removed_after_them() -> None:
    world = World()
    records = [device("s", "other", bridge_id="b"), device("b", "other"), device("t", "other", bridge_id="b")]
    written = world.decided(WriteRecords(devices=records)).changes
    assert [change.new.id for change in written if isinstance(change, PutDevice)] == ["b", "s", "t"]
    removed = world.decided(DeleteAccount(account_id="other")).changes
    assert [change.id for change in removed if isinstance(change, RemoveDevice)] == ["s", "t", "b"]


def test_an_import_does_not_ask_for_the_audience_of_each_new_sub_device() -> None:
    world = World()
    write(world, device("sub-3", bridge_id="bridge"), imported=True)
    assert world.notices == []


def test_a_token_for_an_account_that_is_there_supersedes_its_older_ones() -> None:
    world = World()
    write(world, TokenRecord("guest", "newer", 7), TokenRecord("guest", "newest", 0))
    assert [world.store.tokens[name].serial for name in ("newer", "newest")] == [2, 3]
    assert world.store.accounts["guest"].token_serial == 3
