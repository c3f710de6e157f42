"""`sharesrv bench`: what the server does under load. Alone it is the whole suite; each scenario is a verb of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from sharesrv.bench.floor import relay
from sharesrv.bench.suite import COMPARED, FULL, MORE, QUICK
from sharesrv.cli.bench import scenarios
from sharesrv.cli.bench.options import Json
from sharesrv.cli.bench.single import whole
from sharesrv.cli.options import run

HELP = """
Load the server and tell what it does, with the targets beside it.

Without a verb: the suite. It starts servers on temporary files, on a core of their own, makes its runs in turns, and prints
each figure with its target. --quick takes less than three minutes. A missed target is shown and fails nothing; a wrong or
missing answer does: exit code 1. With a verb: one scenario, against a server that it starts, or with --url against yours.

The generator is a process of its own on the first core, the server on the last. It measures itself: busy for 0.9 of a core
or more, it is likely the limit, and that is said. CPU of the server is user and system time of its process, a thing.
"""

app = typer.Typer(
    name="bench",
    help=HELP,
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def suite(
    context: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="Short runs, three turns of each: under three minutes.")
    ] = False,
    as_json: Json = False,
) -> None:
    if context.invoked_subcommand is None:
        sizes, names = (QUICK, COMPARED) if quick else (FULL, COMPARED + MORE)
        run(whole(sizes, names, as_json=as_json))


suite.__doc__ = HELP
scenarios.add_to(app)


@app.command("relay", hidden=True)
def _relay() -> None:
    """The floor's own process."""
    run(relay())
