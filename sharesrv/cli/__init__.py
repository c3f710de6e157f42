"""The command line: a rack of verbs, one a file. What cannot go on says so in one line, with exit code 2."""

from __future__ import annotations

import sys

import typer

from sharesrv.cli import bench, demo, explain, import_, journal, serve, token
from sharesrv.errors import Trouble

app = typer.Typer(
    name="sharesrv",
    help="The server by which the owner of a smart-home device shares it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("import")(import_.import_)
app.command("token")(token.token)
app.command("journal")(journal.journal)
app.command("explain")(explain.explain)
app.add_typer(bench.app)


def main() -> None:
    """The entry point."""
    try:
        app()
    except Trouble as trouble:
        print(f"sharesrv: {trouble}", file=sys.stderr)
        sys.exit(2)
