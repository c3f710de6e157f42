"""SIGHUP: the settings are read again. What can change without a restart changes, and no connection is dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
from msgspec.structs import asdict, replace

from sharesrv.cli.composition import Running
from sharesrv.cli.options import rules_of, set_log_level
from sharesrv.config import SECRETIVE, SECTIONS, Settings
from sharesrv.errors import Trouble
from sharesrv.faces.websocket.server import tls_context

# What changes, by section; no names: all of it. All else needs a restart, and so does TLS that is turned on or off.
RELOADED: Final = {
    "limits": (),
    "log": (),
    "auth": ("admin_token", "admin_token_file", "viewer_token"),
    "server": ("tls_cert", "tls_key", "drain_seconds"),
}

log = structlog.get_logger()


async def reload(server: Running, read: Callable[[], Settings]) -> None:
    """Read the settings and the files that they name. A mistake is logged, and nothing changes.

    Only the keys of an identity provider that cannot be read are no such mistake: it may be away, and the old ones stay.
    """
    old = server.backend.settings
    try:
        wanted = read()
        tls = tls_context(wanted) if old.server.tls_cert else None
    except Trouble as trouble:
        log.error("the settings stay as they were", reason=str(trouble))
        return
    new = _reloaded(old, wanted)
    if server.tls is not None and tls is not None:
        server.tls.sni_callback = lambda handshake, _name, _context: setattr(handshake, "context", tls)
    server.backend.settings = new
    server.backend.rules = server.ledger.rules = rules_of(new)
    server.door.limit(new.limits)
    server.http.limit = new.limits.http_connections
    await server.backend.tokens.refresh()
    log.info("reloaded", changed=_changes(old, new))
    set_log_level(new.log.level)
    if remaining := list(_changes(new, wanted)):
        log.warning("changed settings need a restart", settings=remaining)


def _reloaded(old: Settings, wanted: Settings) -> Settings:
    """The old settings with those of the wanted ones that can be reloaded."""
    sections = {}
    for section, names in RELOADED.items():
        before, after = getattr(old, section), getattr(wanted, section)
        if section == "server" and bool(before.tls_cert) is not bool(after.tls_cert):
            names = ("drain_seconds",)
        sections[section] = replace(before, **{name: getattr(after, name) for name in names or asdict(after)})
    return replace(old, **sections)


def _changes(old: Settings, new: Settings) -> dict[str, str]:
    """What was, and what is, by setting. Of secrets only that they have changed."""
    changes = {}
    for section in SECTIONS:
        before, after = asdict(getattr(old, section)), asdict(getattr(new, section))
        for name in before:
            if before[name] != after[name]:
                changes[f"{section}.{name}"] = "changed" if section in SECRETIVE else f"{before[name]} → {after[name]}"
    return changes
