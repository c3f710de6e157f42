"""`sharesrv explain`: whether an account may do something with a device, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from sharesrv.cli.database import ask
from sharesrv.cli.options import Assignments, Config, rules_of, run, settings
from sharesrv.clock import SystemClock
from sharesrv.domain.draft import Draft
from sharesrv.domain.explain import ACTIONS, Action, Explanation
from sharesrv.domain.explain import explain as decide
from sharesrv.domain.facts import Facts
from sharesrv.domain.source import Source
from sharesrv.names import iso
from sharesrv.protocol.coolkit.codes import ERRORS


def explain(
    account: Annotated[str, typer.Argument(help="The account's apikey.")],
    device: Annotated[str, typer.Argument(help="The deviceid.")],
    action: Annotated[Action, typer.Argument(help="What the account wants to do.")],
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Say whether an account may do something with a device, and which row, bit, time or bridge decides."""
    set_to = settings(config, assignments)
    clock = SystemClock()

    def look(source: Source) -> Explanation:
        draft = Draft(Facts(source, rules_of(set_to), clock.now_ms()), clock)
        return decide(account, device, ACTIONS[action], draft)

    print(sentence(run(ask(set_to, lambda reader: reader.look(look)))))


def sentence(found: Explanation) -> str:
    """An explanation as one line."""
    verdict = "allowed" if found.refusal is None else f"not allowed ({ERRORS[found.refusal]}: {found.reason})"
    parts = [verdict if found.rule == "none" else f"{verdict}; decided by: {found.rule}"]
    if found.share is not None:
        parts.append(f"share {found.share.id}, permit {int(found.permit)}")
    if found.share is not None and found.bridge_id is not None:
        parts.append(f"of the bridge {found.bridge_id}")
    if found.until_ms is not None:
        parts.append(f"until {iso(found.until_ms)}")
    return ", ".join(parts)
