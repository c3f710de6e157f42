"""Whether an account may do something with a device: the answer as a sentence, with links to the rows that decide."""

from __future__ import annotations

from typing import Final, cast

from litestar import Response, get

from sharesrv.domain.explain import ACTIONS, Action
from sharesrv.faces.console.pages import asked, page
from sharesrv.faces.http.backend import AnyRequest, TheBackend
from sharesrv.faces.http.oversight import look_up
from sharesrv.protocol.coolkit.codes import ERRORS

# What the account wants to do, as the list of the form and a sentence have it.
WORDS: Final[dict[Action, tuple[str, str]]] = {
    "update": ("control it", "control"),
    "query": ("read its state", "read the state of"),
    "share": ("share it", "share"),
    "timers.add": ("add timers", "add timers to"),
    "timers.edit": ("change timers", "change timers of"),
    "timers.delete": ("delete timers", "delete timers of"),
    "timers.enable": ("switch timers", "switch the timers of"),
}


@get("/explain")
async def explain(request: AnyRequest, backend: TheBackend) -> Response[str]:
    """The form, and the answer where all is given."""
    given = asked(request, "account", "device", "action")
    problem, found = "", None
    if any(given.values()):
        missing = [name for name, text in given.items() if not text]
        if missing:
            problem = f"Say which {' and which '.join(missing)}."
        elif given["action"] not in ACTIONS:
            problem = "That is no action: choose one from the list."
        else:
            found = await look_up(backend, given["account"], given["device"], cast("Action", given["action"]))
    error = 0 if found is None or found.refusal is None else ERRORS[found.refusal]
    status = 422 if problem else 200
    return page(request, "explain.html", status, given=given, words=WORDS, problem=problem, found=found, error=error)


HANDLERS: Final = [explain]
