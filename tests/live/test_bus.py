from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sharesrv.domain.control import UpdateDevice
from sharesrv.domain.outcome import DeviceUpdated, Notice, Presence, Responded, TokenRevoked, packed
from sharesrv.errors import Refusal, Refused
from sharesrv.live.bus import (
    Abandon,
    Control,
    Controlled,
    DeviceOpened,
    Message,
    Notices,
    SessionOpened,
)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20) | st.just("Å→🔒é")
numbers = st.sampled_from(
    ["1e400", "-0", "0.10", "1E+2", "123456789012345678901234567890", "[]", '{"a":[1,null]}', '""']
)
raws = numbers.map(lambda text: msgspec.Raw(text.encode()))
ids = st.integers(0, 2**63 - 1)
params = st.dictionaries(texts, raws, max_size=3)
updates = st.builds(
    UpdateDevice,
    account_id=texts,
    device_id=texts,
    apikeys=st.lists(texts, max_size=2).map(tuple),
    sequence=texts,
    params=params,
    session=ids,
)
notices: st.SearchStrategy[Notice] = (
    st.builds(DeviceUpdated, texts, texts, texts, st.booleans(), texts, params, ids)
    | st.builds(Presence, texts, texts, texts, st.booleans())
    | st.builds(TokenRevoked, texts, texts)
)


def over_the_wire(message: Message) -> Message:
    decoded: Message = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Message)
    assert decoded == message
    return decoded


@given(updates)
def test_a_command_arrives_as_it_was_sent(command: UpdateDevice) -> None:
    arrived = over_the_wire(Control.of(command))
    assert isinstance(arrived, Control)
    assert arrived.unpacked() == command


@given(st.lists(notices, max_size=4))
def test_notices_arrive_as_they_were_sent(told: list[Notice]) -> None:
    arrived = over_the_wire(Notices.of(told, 0))
    assert isinstance(arrived, Notices)
    assert arrived.unpacked() == told


def test_a_notice_of_a_newer_version_keeps_no_other_from_being_told() -> None:
    known = Presence("owner", "owner", "lamp", True)
    arrived = Notices([packed(known), b'{"type":"NotYetKnown"}', b'{"type":"Presence"}', packed(known)], 0)
    assert arrived.unpacked() == [known, known]


@given(st.integers(-(2**63), 2**63 - 1), raws | st.none())
def test_a_device_s_reply_arrives_as_it_was_sent(error: int, d_seq: msgspec.Raw | None) -> None:
    arrived = over_the_wire(Controlled.of(Responded(error, d_seq)))
    assert isinstance(arrived, Controlled)
    assert arrived.unpacked() == Responded(error, d_seq)


@given(st.sampled_from(Refusal), texts, ids | st.none())
def test_a_refusal_arrives_as_it_was_sent(refusal: Refusal, reason: str, retry_after_ms: int | None) -> None:
    sent = Refused(refusal, reason, retry_after_ms=retry_after_ms)
    arrived = over_the_wire(Controlled.of(sent))
    assert isinstance(arrived, Controlled)
    refused = arrived.unpacked()
    assert isinstance(refused, Refused)
    assert (refused.refusal, refused.reason, refused.retry_after_ms) == (refusal, sent.reason, retry_after_ms)


def test_a_refusal_of_a_newer_version_is_an_internal_error_with_its_reason() -> None:
    refused = Controlled(refusal="NOT_YET_KNOWN", reason="the moon is full").unpacked()
    assert isinstance(refused, Refused)
    assert (refused.refusal, refused.reason) == (Refusal.INTERNAL, "the moon is full")


@given(texts, ids)
def test_small_messages_arrive_as_they_were_sent(name: str, session: int) -> None:
    for message in (Abandon(session), SessionOpened(name, session), DeviceOpened(name, session)):
        over_the_wire(message)
