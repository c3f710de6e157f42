"""What the two parties of a share may do with it by its code (PROTOCOL 3.1)."""

from __future__ import annotations

from sharesrv.domain.answers import turn_down
from sharesrv.domain.callers import caller
from sharesrv.domain.codes import withdraw
from sharesrv.domain.commands import Amend, ByCode, Close, FindDevice, Identify, Inspect, Leave, Rename, SetEnd, Unshare
from sharesrv.domain.draft import Draft
from sharesrv.domain.grants import active, below, end
from sharesrv.domain.keys import CodeKey, ProductKey, ShareKey
from sharesrv.domain.outcome import Coded, DeviceFound, Done, Identified
from sharesrv.domain.share import Cause, Door, Event, Share, State
from sharesrv.errors import Refusal, Refused


def identify(command: Identify, draft: Draft) -> None:
    """Whose token it is; then what was wrong with the rest."""
    account = caller(command, draft.facts)
    if command.refusal is not None:
        raise Refused(command.refusal)
    draft.outcome.reply = Identified(account)


def find_device(command: FindDevice, draft: Draft) -> None:
    """The caller's device."""
    account = caller(command, draft.facts)
    device = draft.facts.get(ProductKey(command.pk, command.dk))
    if device is None or device.owner_id != account.id:
        raise Refused(Refusal.NOT_ITS_OWNER)
    draft.outcome.reply = DeviceFound(device)


def set_end(command: SetEnd, draft: Draft) -> None:
    """`setShareTime`: the end of a grant, with its sub-devices', or the one that a waiting code will give.

    What was set apart has no end of its own: it ends with the last grant of its bridge.
    """
    share = _as_sharer(command, draft)
    if share.door is Door.APART:  # it has no end of its own, it goes with its bridge's grant
        raise Refused(Refusal.NO_SUCH_SHARE)
    if share.state is State.OPEN and command.ends_ms <= share.deadline_ms:
        raise Refused(Refusal.ENDS_TOO_EARLY)
    device = draft.device(share)
    under = active(below(draft.tree(share), device, draft.facts)) if device and share.state is State.ACTIVE else []
    for each in (share, *(own for own in under if own.door is not Door.APART)):
        draft.move(each, Event.CHANGE, each.cause, ends_ms=command.ends_ms)
    draft.outcome.reply = Done()


def unshare(command: Unshare, draft: Draft) -> None:
    """`ownerUserUnshareDevice`."""
    _cancel(_as_sharer(command, draft), draft)


def _cancel(share: Share, draft: Draft) -> None:
    if share.state is State.OPEN:
        withdraw(draft, share, Cause.CANCELLED)
    else:
        end(draft, [share], Cause.CANCELLED)
    draft.outcome.reply = Done()


def leave(command: Leave, draft: Draft) -> None:
    """`shareUserUnshareDevice`."""
    share = _as_sharee(command, draft)
    if share.state is State.OPEN:
        turn_down(draft, share, share.sharee_id or "")
    else:
        end(draft, [share], Cause.LEFT)
    draft.outcome.reply = Done()


def rename(command: Rename, draft: Draft) -> None:
    """`changeShareDeviceName`: only the name that this account sees."""
    share = _as_sharee(command, draft)
    if share.state is not State.ACTIVE:
        raise Refused(Refusal.SHARE_OVER)
    draft.move(share, Event.CHANGE, share.cause, device_name=command.device_name)
    draft.outcome.reply = Done()


def inspect(command: Inspect, draft: Draft) -> None:
    """`shareCodeInfo`: to its parties, and of a code that waits for anybody to whoever holds it."""
    account = caller(command, draft.facts)
    share = draft.facts.share(CodeKey(command.code))
    if share is None or account.id not in (share.sharer_id, share.sharee_id or account.id):
        raise Refused(Refusal.NO_SUCH_SHARE)
    draft.outcome.reply = Coded(_not_over(share), draft.device(share))


def _as_sharer(command: ByCode, draft: Draft) -> Share:
    return _as(command, draft, sharer=True)


def _as_sharee(command: ByCode, draft: Draft) -> Share:
    return _as(command, draft, sharer=False)


def _as(command: ByCode, draft: Draft, *, sharer: bool) -> Share:
    """The share of this code, if it is the caller's in this role. Raises Refused."""
    account = caller(command, draft.facts)
    share = draft.facts.share(CodeKey(command.code))
    if share is None or account.id != (share.sharer_id if sharer else share.sharee_id):
        raise Refused(Refusal.NO_SUCH_SHARE)
    return _not_over(share)


def _not_over(share: Share) -> Share:
    if share.state not in (State.OPEN, State.ACTIVE):
        raise Refused(Refusal.SHARE_OVER)
    return share


def close(command: Close, draft: Draft) -> None:
    """An operator ends a share; both sides are told."""
    _cancel(_named(command, draft), draft)


def amend(command: Amend, draft: Draft) -> None:
    """An operator changes a grant; both sides are told."""
    share = _named(command, draft)
    if share.state is not State.ACTIVE:
        raise Refused(Refusal.SHARE_OVER)
    given = {"permit": command.permit, "note": command.note, "ends_ms": command.ends_ms}
    edits = {name: value for name, value in given.items() if value is not None}
    amended = draft.move(share, Event.CHANGE, share.cause, **edits)
    for account_id in filter(None, (share.sharer_id, share.sharee_id)):
        draft.outcome.after.append(draft.updated(amended, account_id))
    draft.outcome.reply = Done()


def _named(command: Close, draft: Draft) -> Share:
    share = draft.facts.share(ShareKey(command.share_id))
    if share is None:
        raise Refused(Refusal.NO_SUCH_SHARE)
    return _not_over(share)
