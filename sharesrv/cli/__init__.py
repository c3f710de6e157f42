"""The command line: a rack of verbs, one a file. An error that ends a verb is one line, with exit code 2.

Only the verb that is named is imported, so that a short one does not wait for the server's parts.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final

from sharesrv.errors import Trouble

if TYPE_CHECKING:
    import typer

VERBS: Final = ("serve", "demo", "sandbox", "import", "token", "journal", "explain", "copy", "backup", "check", "bench")
INTERRUPTED: Final = 130  # the exit code of a shell for a program that SIGINT ended


def app_for(arguments: Sequence[str]) -> typer.Typer:
    """An application with the verb with which `arguments` begin; with all verbs where they begin with none."""
    import typer

    app = typer.Typer(
        name="sharesrv",
        help="The server by which the owner of a smart-home device shares it.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(lambda: None)  # or a single verb would need no name
    for verb in [word for word in arguments[:1] if word in VERBS] or VERBS:
        name = "import_" if verb == "import" else verb  # a keyword
        app.command(verb)(getattr(import_module(f"sharesrv.cli.{name}"), name))
    return app


def main() -> None:
    try:
        gc.disable()  # nothing that is imported is garbage; to look for some took a fifth of the time
        app = app_for(sys.argv[1:])
        gc.freeze()
        gc.enable()
        app()
    except Trouble as trouble:
        print(f"sharesrv: {trouble}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # while a verb is imported
        sys.exit(INTERRUPTED)
