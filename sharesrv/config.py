"""Settings: one struct a section. Lowest to highest: defaults, a TOML file, environment `SHARESRV_SECTION__KEY`, `--set`.

Lengths are seconds, fractions allowed. A limit of 0 is off (PROTOCOL 2.9, 4). A type's description says in an error what
the setting must be.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints
from urllib.parse import urlsplit

import msgspec

from sharesrv.errors import Trouble, unreadable
from sharesrv.names import is_storable

PREFIX: Final = "SHARESRV_"
SECRETIVE: Final = ("auth", "database", "bus")  # sections whose values are in no error
PERCENT: Final = "in a password, write what is no letter or digit as %XX"

Text = Annotated[str, msgspec.Meta(description="text")]
URLS: Final = "sqlite:///FILE or postgresql://USER@HOST:PORT/DATABASE"
DatabaseUrl = Annotated[str, msgspec.Meta(pattern="^(sqlite:///.|postgresql://.)", description=URLS)]
BusUrl = Annotated[
    str, msgspec.Meta(pattern="^((nats|tls)://.+)?$", description="nats://HOST:PORT or tls://HOST:PORT, or empty")
]
Switch = Annotated[bool, msgspec.Meta(description="true or false")]
Policy = Annotated[Literal["single", "multi"], msgspec.Meta(description="single or multi")]
Level = Annotated[
    Literal["debug", "info", "warning", "error"], msgspec.Meta(description="debug, info, warning or error")
]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535, description="a whole number 0…65535")]
Limit = Annotated[int, msgspec.Meta(ge=0, le=2**31, description="a whole number, 0 (no limit) or more")]
Batch = Annotated[int, msgspec.Meta(ge=1, le=512, description="a whole number 1…512")]
WholeSeconds = Annotated[int, msgspec.Meta(gt=0, le=10**9, description="a whole number of seconds above 0")]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9, description="a number of seconds, 0 or more")]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0, le=1e9, description="a number of seconds above 0")]
Days = Annotated[float, msgspec.Meta(gt=0, le=1e6, description="a number of days above 0")]
KeptDays = Annotated[float, msgspec.Meta(ge=0, le=1e6, description="a number of days, 0 (for ever) or more")]


class Server(msgspec.Struct, frozen=True):
    host: Text = "127.0.0.1"
    ws_port: Port = 8765
    http_port: Port = 8080
    public_host: Text = ""
    tls_cert: Text = ""
    tls_key: Text = ""
    trusted_proxies: Text = ""  # addresses and networks, with commas between them
    drain_seconds: Seconds = 0.0  # from /readyz 503 to the end of listening; 0, so that Ctrl-C ends it at once


class Database(msgspec.Struct, frozen=True):
    url: DatabaseUrl = "sqlite:///sharesrv.db"
    batch: Batch = 64  # commands in one transaction, on PostgreSQL: those of many nodes overlap where they are short


class Bus(msgspec.Struct, frozen=True):
    url: BusUrl = ""  # by which nodes on PostgreSQL reach one another


class Sessions(msgspec.Struct, frozen=True):
    policy: Policy = "single"
    heartbeat: WholeSeconds = 145


class Sharing(msgspec.Struct, frozen=True):
    confirm_timeout: PositiveSeconds = 180.0  # S4: "3 minutes"
    resend_cooldown: Seconds = 180.0
    invitation_seconds: PositiveSeconds = 86400.0
    bridge_cascade: Switch = True


class Devices(msgspec.Struct, frozen=True):
    response_timeout: PositiveSeconds = 5.0


class Limits(msgspec.Struct, frozen=True):
    frame_bytes: Limit = 65536
    frames_per_second: Limit = 50
    frame_burst: Limit = 100
    handshakes_per_minute: Limit = 120
    unknown_uids_per_minute: Limit = 20
    open_offers: Limit = 100
    offers_per_minute: Limit = 10
    open_codes: Limit = 1000
    codes_per_minute: Limit = 60
    device_keys_per_minute: Limit = 20
    unsent_bytes: Limit = 1024 * 1024
    connections: Limit = 15000
    connections_per_second: Limit = 2000
    unauthenticated: Limit = 1000
    unauthenticated_per_address: Limit = 200
    http_connections: Limit = 1000


class Auth(msgspec.Struct, frozen=True):
    token_days: Days = 30.0
    admin_token: Text = ""
    admin_token_file: Text = ""
    viewer_token: Text = ""  # opens the console, to look only
    jwt_jwks: Text = ""
    jwt_issuer: Text = ""
    jwt_audience: Text = ""
    jwt_claim: Text = "sub"


class Retention(msgspec.Struct, frozen=True):
    """How long what is over is stored. A year of history answers most questions about who could use what, and when."""

    ended_shares_days: KeptDays = 365.0
    journal_days: KeptDays = 365.0
    dead_tokens_days: KeptDays = 30.0  # an app that comes back within them hears that its token has expired (402)
    answers_days: KeptDays = 30.0  # that were not received: PROTOCOL 2.4 promises 30


class Log(msgspec.Struct, frozen=True):
    level: Level = "info"  # of `serve`


class Settings(msgspec.Struct, frozen=True, dict=True):
    server: Server = msgspec.field(default_factory=Server)
    database: Database = msgspec.field(default_factory=Database)
    bus: Bus = msgspec.field(default_factory=Bus)
    sessions: Sessions = msgspec.field(default_factory=Sessions)
    sharing: Sharing = msgspec.field(default_factory=Sharing)
    devices: Devices = msgspec.field(default_factory=Devices)
    limits: Limits = msgspec.field(default_factory=Limits)
    auth: Auth = msgspec.field(default_factory=Auth)
    retention: Retention = msgspec.field(default_factory=Retention)
    log: Log = msgspec.field(default_factory=Log)

    def origin(self, setting: str) -> str:
        """Where a setting was given, as errors say it: the file, the variable, or `--set` with its name."""
        return str(vars(self).get(setting, "default"))


SECTIONS: Final[dict[str, type[msgspec.Struct]]] = get_type_hints(Settings)


def load(file: Path | None, environment: Mapping[str, str], assignments: Iterable[str]) -> Settings:
    """The settings in force. Raises Trouble, which names the setting, what it may be and where it was given."""
    found: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    origins: dict[str, str] = {}
    for origin, section, key, value in _given(file, environment, assignments):
        _set(found, section, key, value, origin)
        origins[f"{section}.{key}"] = origin
    settings = msgspec.convert(found, Settings)
    if settings.auth.admin_token_file:
        found["auth"]["admin_token"] = _admin_token(settings.auth)
        settings = msgspec.convert(found, Settings)
    vars(settings).update(origins)
    _check(settings)
    return settings


def _given(
    file: Path | None, environment: Mapping[str, str], assignments: Iterable[str]
) -> Iterator[tuple[str, str, str, object]]:
    """Where each setting is given, its section, its key and its value; the higher source last. No origin has a value."""
    if file is not None:
        for section, table in _read(file).items():
            if not isinstance(table, dict):
                raise Trouble(f"{file}: {section} stands outside a section; write [section], below it key = value")
            for key, value in table.items():
                yield str(file), section, key, value
    for name, text in environment.items():
        if name.startswith(PREFIX):
            section, separator, key = name.removeprefix(PREFIX).lower().partition("__")
            if not separator:
                raise Trouble(f"{name}: write {PREFIX}SECTION__KEY, with two underscores between them")
            yield name, section, key, text
    for number, assignment in enumerate(assignments, 1):
        path, equals, text = assignment.partition("=")
        section, dot, key = path.strip().partition(".")
        if not equals or not dot:
            raise Trouble(f"--set number {number}: write section.key=value")
        yield f"--set {section}.{key}", section, key, text


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(file, str(file)))
    except RecursionError as error:
        raise Trouble(f"{file}: nested too deep") from error
    except ValueError as error:
        raise Trouble(f"{file}: {error}") from error


def _text(file: Path, origin: str) -> str:
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise unreadable(origin, error) from error
    except ValueError as error:
        raise Trouble(f"{origin}: is not UTF-8") from error


def _set(found: dict[str, dict[str, Any]], section: str, key: str, value: object, origin: str) -> None:
    """Put one value into `found`. `origin` says where it was given."""
    if section not in SECTIONS:
        raise Trouble(f"{origin}: there is no section {section!r}; there are {', '.join(SECTIONS)}")
    kinds = get_type_hints(SECTIONS[section], include_extras=True)
    if key not in kinds:
        raise Trouble(f"{origin}: there is no setting {section}.{key}; {section} has {', '.join(kinds)}")
    if isinstance(value, str) and not is_storable(value):
        raise Trouble(f"{origin}: {section}.{key} must be text in UTF-8, without U+0000")
    try:
        found[section][key] = msgspec.convert(value, kinds[key], strict=False)
    except msgspec.ValidationError as error:
        (meta,) = kinds[key].__metadata__
        given = "" if section in SECRETIVE else f", not {value!r}"
        raise Trouble(f"{origin}: {section}.{key} must be {meta.description}{given}") from error


def _check(settings: Settings) -> None:
    """Raises Trouble where settings do not fit each other."""
    server = settings.server
    for name, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if getattr(server, name) and not getattr(server, other):
            raise Trouble(f"{settings.origin(f'server.{name}')}: server.{name} needs server.{other}")
    if server.ws_port == server.http_port != 0:
        raise Trouble(f"server.ws_port and server.http_port are both {server.ws_port}")
    for setting, url in (("database.url", settings.database.url), ("bus.url", settings.bus.url)):
        if not is_clear(url):
            raise Trouble(f"{settings.origin(setting)}: {setting} is not understood; {PERCENT}")


def checked_url(name: str, url: str) -> str:
    """A database's URL that is given beside the settings. Raises Trouble."""
    try:
        msgspec.convert(url, DatabaseUrl)
    except msgspec.ValidationError as error:
        raise Trouble(f"{name} must be {URLS}") from error
    if not is_clear(url):
        raise Trouble(f"{name} is not understood; {PERCENT}")
    return url


def is_clear(url: str) -> bool:
    """Whether it is clear where in a URL the host and the port stand: an unescaped password makes others of them."""
    if url.startswith("sqlite:"):
        return True
    try:
        parts = urlsplit(url)
        is_split = parts.netloc.count("@") <= 1 and "@" not in f"{parts.path}{parts.query}{parts.fragment}"
        return is_split and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def shown(url: str) -> str:
    """A URL as people may see it: without user, password and parameters."""
    if url.startswith("sqlite:"):
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _admin_token(auth: Auth) -> str:
    """The operators' token from its file. Raises Trouble."""
    if auth.admin_token:
        raise Trouble("auth.admin_token and auth.admin_token_file are both set")
    origin = f"auth.admin_token_file: {auth.admin_token_file}"
    token = _text(Path(auth.admin_token_file), origin).strip()
    if not token:
        raise Trouble(f"{origin}: is empty")
    return token
