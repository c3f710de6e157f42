"""`sharesrv token`: mints an access token, beside a running server too."""

from __future__ import annotations

from typing import Annotated

import typer

from sharesrv.auth import digest, new_token
from sharesrv.cli.options import Assignments, Config, settings
from sharesrv.clock import SystemClock
from sharesrv.errors import Trouble
from sharesrv.store.batch import Batch, TokenRow
from sharesrv.store.sqlite import known
from sharesrv.store.sqlite.connection import connect, path_of
from sharesrv.store.sqlite.load import load

DAY_MS = 24 * 3600 * 1000


def token(
    apikey: Annotated[str, typer.Argument(help="The account's apikey.")],
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Mint an access token for an account and print it. It supersedes the account's older ones."""
    set_to = settings(config, assignments)
    clock = SystemClock()
    connection = connect(path_of(set_to.database.url), create=False)
    try:
        if not known.accounts(connection, [apikey], []):
            raise Trouble(f"there is no account {apikey}")
        at = new_token()
        expires_ms = clock.now_ms() + round(set_to.auth.token_days * DAY_MS)
        load(connection, Batch(tokens=[TokenRow(apikey, digest(at), expires_ms)]), clock.now_ms(), clock)
    finally:
        connection.close()
    print(at)
