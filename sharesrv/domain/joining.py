"""A question is put to an account; one about a sub-device joins its bridge's, so that one answer is given (PROTOCOL 2.7)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sharesrv.domain.draft import Draft
from sharesrv.domain.ending import replace
from sharesrv.domain.grants import active, below, on
from sharesrv.domain.outcome import Offered
from sharesrv.domain.share import Cause, Event, Share, State
from sharesrv.domain.source import Device


def question_above(tree: Iterable[Share], device: Device) -> Share | None:
    """The open question about the bridge of `device` that a question about `device` joins.

    One about a sub-device that has a grant of its own is about that, and joins none.
    """
    rows = on(tree, device.id)
    above = on(tree, device.bridge_id or "")
    return None if active(rows) else next((share for share in above if share.state is State.OPEN), None)


def will_join(rows: Iterable[Share]) -> list[Share]:
    """Of the shares of sub-devices the open questions that join one about their bridge."""
    rows = list(rows)
    apart = {share.device_id for share in active(rows)}
    return [share for share in rows if share.state is State.OPEN and share.device_id not in apart]


def ask(draft: Draft, question: Share, device: Device, tree: list[Share], replaced: Iterable[Share]) -> Share:
    """Make the share that asks, in the place of `replaced`; and push it, unless it joins its bridge's question."""
    old_ids = set[int]()
    for old in replaced:
        replace(draft, old)
        old_ids.add(old.id)
    above = question_above(tree, device)
    if above is not None:
        deadline_ms = min(question.deadline_ms, above.deadline_ms)
        question = msgspec.structs.replace(
            question, state=State.JOINED, bridge_offer_id=above.id, deadline_ms=deadline_ms
        )
        return draft.make(question)
    _draw_in(draft, question, below(tree, device), old_ids)
    draft.make(question)
    draft.after.append(Offered(question.sharee_id or "", question))
    return question


def _draw_in(draft: Draft, question: Share, rows: list[Share], old_ids: set[int]) -> None:
    """Let open questions about sub-devices join the bridge's, each with the earlier deadline; dialogs are taken down.

    What had joined one that is replaced goes over to the new one; what stays out of that stays out as long as it waits.
    """
    opens = will_join(rows)
    for share in [*opens, *(row for row in rows if row.state is State.JOINED and row.bridge_offer_id in old_ids)]:
        deadline_ms = question.deadline_ms if not share.waits else min(share.deadline_ms, question.deadline_ms)
        draft.move(share, Event.JOIN, Cause.REPLACED, bridge_offer_id=question.id, deadline_ms=deadline_ms)
    for share in opens:
        draft.tell_ended(share, Cause.REPLACED)
