"""`sharesrv token`: mints an access token, while a server runs or not."""

from __future__ import annotations

from typing import Annotated

import typer

from sharesrv.auth import digest, new_token
from sharesrv.cli.database import carry_out
from sharesrv.cli.options import Assignments, Config, run, settings
from sharesrv.clock import SystemClock
from sharesrv.domain.record_checks import TokenRecord
from sharesrv.domain.records import WriteRecords
from sharesrv.errors import Refused, Trouble

DAY_MS = 24 * 3600 * 1000


def token(
    apikey: Annotated[str, typer.Argument(help="The account's apikey.")],
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Mint an access token for an account and print it. With the policy `single` it supersedes the account's older ones."""
    if not apikey:
        raise Trouble("APIKEY is empty")
    set_to = settings(config, assignments)
    at = new_token()
    expires_ms = SystemClock().now_ms() + round(set_to.auth.token_days * DAY_MS)
    command = WriteRecords(tokens=[TokenRecord(apikey, digest(at), expires_ms)], imported=True)
    try:
        run(carry_out(set_to, command, create=False))
    except Refused as refused:
        raise Trouble(refused.reason) from refused
    print(at)
