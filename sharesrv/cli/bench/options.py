"""The options that several scenarios take."""

from __future__ import annotations

from typing import Annotated

import typer

Pairs = Annotated[int, typer.Option(min=1, help="Owners, each with a guest.")]
Connections = Annotated[int, typer.Option(min=1, help="Accounts that hold a connection, or connect.")]
Seconds = Annotated[float, typer.Option(min=0.05, help="That count in each run, after 0.3 s that do not.")]
Repeat = Annotated[int, typer.Option(min=1, help="Runs; medians are told.")]
Url = Annotated[str, typer.Option(metavar="ws://…", help="A server that runs, filled with `bench records`.")]
HttpUrl = Annotated[str, typer.Option(metavar="http://…", help="Where that server answers HTTP.")]
Key = Annotated[str, typer.Option(help="What the records were made with: names and secrets follow from it.")]
Devices = Annotated[
    int,
    typer.Option(
        min=0, help="To share, a pair; each once. As many as --seconds may need, if 0. With --url as imported."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else.")]
