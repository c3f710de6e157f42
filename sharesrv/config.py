"""Settings: one struct a section. Lowest to highest: defaults, a TOML file, environment `SHARESRV_SECTION__KEY`, `--set`.

Lengths are seconds, fractions allowed. A limit of 0 is off (PROTOCOL 2.9, 4).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from sharesrv.errors import Trouble

PREFIX: Final = "SHARESRV_"

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Limit = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
Days = Annotated[float, msgspec.Meta(gt=0, le=1e6)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A section of the settings; a key that it does not have is an error."""


class Server(Section, frozen=True):
    host: str = "127.0.0.1"
    ws_port: Port = 8765
    http_port: Port = 8080
    public_host: str = ""
    tls_cert: str = ""
    tls_key: str = ""


class Database(Section, frozen=True):
    url: str = "sqlite:///sharesrv.db"


class Sessions(Section, frozen=True):
    policy: Literal["single", "multi"] = "single"
    heartbeat: Annotated[int, msgspec.Meta(gt=0)] = 145


class Sharing(Section, frozen=True):
    confirm_timeout: Positive = 180.0  # S4: "3 minutes"
    resend_cooldown: Seconds = 180.0
    invitation_seconds: Positive = 86400.0
    bridge_cascade: bool = True


class Devices(Section, frozen=True):
    response_timeout: Positive = 5.0


class Limits(Section, frozen=True):
    frame_bytes: Limit = 65536
    frames_per_second: Limit = 50
    frame_burst: Limit = 100
    handshakes_per_minute: Limit = 120
    unknown_uids_per_minute: Limit = 20
    open_offers: Limit = 100
    offers_per_minute: Limit = 10
    open_codes: Limit = 1000
    unsent_bytes: Limit = 1024 * 1024
    connections: Limit = 15000
    connections_per_second: Limit = 2000


class Auth(Section, frozen=True):
    token_days: Days = 30.0
    admin_token: str = ""
    jwt_jwks: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_claim: str = "sub"


class Settings(Section, frozen=True):
    server: Server = msgspec.field(default_factory=Server)
    database: Database = msgspec.field(default_factory=Database)
    sessions: Sessions = msgspec.field(default_factory=Sessions)
    sharing: Sharing = msgspec.field(default_factory=Sharing)
    devices: Devices = msgspec.field(default_factory=Devices)
    limits: Limits = msgspec.field(default_factory=Limits)
    auth: Auth = msgspec.field(default_factory=Auth)


def load(file: Path | None, environment: Mapping[str, str], assignments: Iterable[str]) -> Settings:
    """The settings in force. Raises Trouble, naming what is wrong and where it was said."""
    tree: dict[str, dict[str, Any]] = {}
    if file is not None:
        _merge(tree, _read(file), str(file))
    for name, value in environment.items():
        section, separator, key = name.removeprefix(PREFIX).lower().partition("__")
        if name.startswith(PREFIX):
            if not separator:
                raise Trouble(f"{name}: write {PREFIX}SECTION__KEY, with two underscores between them")
            _merge(tree, {section: {key: value}}, name)
    for assignment in assignments:
        path, separator, value = assignment.partition("=")
        section, dot, key = path.strip().partition(".")
        if not separator or not dot:
            raise Trouble(f"--set {assignment}: write section.key=value")
        _merge(tree, {section: {key: value}}, f"--set {assignment}")
    return _convert(tree, "settings")


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise Trouble(f"{file}: {error}") from error


def _merge(tree: dict[str, dict[str, Any]], more: dict[str, Any], said: str) -> None:
    _convert(more, said)
    for section, values in more.items():
        tree.setdefault(section, {}).update(values)


def _convert(tree: dict[str, Any], said: str) -> Settings:
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise Trouble(f"{said}: {error}") from error
