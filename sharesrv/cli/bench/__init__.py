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

Without a verb it is the whole suite: it starts servers on temporary files, makes its runs in turns, and prints each figure
with its target and, below, every run. With --quick that takes less than three minutes, without about ten. With a verb it is
one scenario: against a server that it starts, or with --url, where the verb has it, against yours (see `records`).

Every answer is checked. A wrong or a missing one fails the run: exit code 1, and what was wrong on standard error. A target
that is missed is shown, and fails nothing.

The generator runs on the first core, the server on the last. It measures itself: where it was busy for 0.9 of a core or more
it was likely the limit, and that is said. Ratios are of medians of runs that were made in turns. CPU is the user and system
time of the server's process, divided by the things that were done.
"""


def _flowing(text: str) -> str:
    """Paragraphs without their line breaks: the terminal has its own."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


app = typer.Typer(
    name="bench",
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(help=_flowing(HELP), short_help="Load the server and tell what it does, with the targets beside it.")
def suite(
    context: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="Short runs, three turns of each: under three minutes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The suite, where no verb is given."""
    if context.invoked_subcommand is None:
        sizes, names = (QUICK, COMPARED) if quick else (FULL, COMPARED + MORE)
        run(whole(sizes, names, as_json=as_json))


scenarios.add_to(app)


@app.command("relay", hidden=True)
def _relay() -> None:
    """The floor's own process."""
    run(relay())
