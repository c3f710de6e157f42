"""What operators write: lines of an import, whole files of them, and settings from each of their sources (PROTOCOL 4)."""

from __future__ import annotations

import asyncio
import codecs
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final

import msgspec

from sharesrv.cli.database import carry_out
from sharesrv.cli.import_ import import_
from sharesrv.cli.options import rules_of
from sharesrv.config import SECRETIVE, SECTIONS, Settings, load, shown
from sharesrv.domain.record_checks import AccountRecord, Record, Unfit
from sharesrv.errors import Refused, Trouble
from sharesrv.faces.records import record_of, write_command
from sharesrv.faces.websocket.server import Door, tls_context
from sharesrv.faces.websocket.transport import Times
from sharesrv.protocol import importing
from tests.fuzz.oddities import TEXTS, Chance, written
from tests.fuzz.peers import folder, records
from tests.fuzz.rounds import Broken, Input
from tests.wire import GUEST, OTHER, OWNER, settings_for

LINE, FILE, ENVIRONMENT, ARGUMENTS, TOML = "line", "file", "environment", "--set", "TOML"
AT_ONCE: Final = 50  # lines that are written in one transaction
LINES: Final[list[Mapping[str, Any]]] = [
    {"account": {"apikey": "new", "uid": "new@example.org", "nickname": "New"}},
    {"account": {"apikey": OWNER, "uid": "+8613570211955", "nickname": None}},
    {"token": {"apikey": OTHER, "at": "at-new", "expiresAt": 4102444800000}},
    {"device": {"deviceid": "new", "owner": OWNER, "name": "New", "devicekey": "k", "pk": "P1", "dk": "new", "uiid": 1,
                "bridge": "bridge", "authKey": "x", "verified": True, "shareable": True, "params": {"a": [1, {"b": None}]}}},
    {"device": {"deviceid": "lamp", "owner": OWNER, "devicekey": "key-lamp"}},
    {"share": {"device": "lamp", "sharee": GUEST, "permit": 15, "note": "客", "sharingExpireAt": 4102444800000}},
]  # fmt: skip
VALUES: Final[tuple[Any, ...]] = (
    "/", "/nothing", "1.5", "nan", "inf", "sqlite:///x", "sqlite:////x", "10.0.0.0/33", "multi", "true",
    "nats://u:s3cr3t@h:1", "postgresql://u:s3cr3t/@h:1/d", "postgresql://u:s3cr3t@h:x/d", 10**20, -1, True, [1], {},
)  # fmt: skip
SECRET: Final = "s3cr3t"  # it is in the values of sections whose values are in no error


class Imports:
    """Each line is read; those that are taken are written, many at once. A whole file goes through the command itself."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "rows"
        self._settings = settings_for(folder / "share.db")
        self._database = f"database.url={self._settings.database.url}"
        self._taken: list[Record] = []

    def invent(self, chance: Chance) -> Input:
        if not chance.one_in(25):
            return Input(LINE, chance.json(chance.choice(LINES)))
        lines = [written([(key, list(value.items())) for key, value in each.items()]).encode() for each in LINES]
        lines += [chance.json(chance.choice(LINES)) for _ in range(chance.choice((0, 0, 1)))]
        chance.shuffle(lines)
        data = chance.choice((b"\n", b"\r\n", b"\n\n", b"\r")).join(lines)
        match chance.randrange(8):
            case 0:
                data = codecs.BOM_UTF8 * chance.choice((1, 2)) + data
            case 1:
                data = data.decode("utf-8", "replace").encode(chance.choice(("utf-16", "utf-32", "utf-7", "gb18030")))
            case 2:
                data = chance.scarred(data)
            case 3:
                data = chance.choice((b"", b"\n", b"\x00", codecs.BOM_UTF16, b"\x1f\x8b", b"x" * 100_000))
        return Input(FILE, data)

    async def check(self, given: Input) -> None:
        if given.role == FILE:
            await asyncio.to_thread(self._import, given.data)
            return
        try:
            self._taken.append(record_of(importing.read(given.data)))
        except ValueError as error:
            say_why(str(error))
        if len(self._taken) >= AT_ONCE:
            await self._write(self._taken)
            await self._write([AccountRecord("honest", "honest@example.org", "Honest")])
            self._taken = []

    def _import(self, data: bytes) -> None:
        self._file.write_bytes(data)
        with redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()):
            try:
                import_(self._file, None, [self._database])
            except Trouble as trouble:
                say_why(str(trouble))
                return
        if not said.getvalue().startswith("imported "):
            raise Broken(f"the import says {said.getvalue()!r}")

    async def _write(self, records: list[Record]) -> None:
        """All of the records, less one that does not fit, and again."""
        while records:
            try:
                await carry_out(self._settings, write_command(records), create=True)
            except Unfit as unfit:
                say_why(unfit.reason)
                records = [each for each in records if each is not unfit.record]
            except Refused as refused:
                raise Broken(f"the records are refused: {refused.reason}") from refused
            else:
                return


class Configurations:
    """Settings from one source at a time. What is taken must be good for a server, as far as that needs no network."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "settings.toml"
        self._names = [(section, key) for section, kind in SECTIONS.items() for key in kind.__struct_fields__]
        self._defaults = msgspec.to_builtins(Settings())

    def invent(self, chance: Chance) -> Input:
        role = chance.choice((TOML, ENVIRONMENT, ARGUMENTS))
        chosen = [chance.choice(self._names) for _ in range(chance.choice((1, 1, 2, 4)))]
        form = {TOML: "[{0}]\n{1} = {2}\n", ENVIRONMENT: "SHARESRV_{0}__{1}={2}\n", ARGUMENTS: "{0}.{1}={2}\n"}[role]
        text = "".join(form.format(*self._given(chance, role, *each)) for each in chosen)
        data = text.encode("utf-8", "surrogatepass")
        return Input(role, chance.scarred(data) if chance.one_in(4) else data)

    def _given(self, chance: Chance, role: str, section: str, key: str) -> tuple[str, str, str]:
        default = self._defaults[section][key]
        value = chance.choice((default, chance.value(), SECRET, chance.choice(VALUES)))
        if chance.one_in(15):
            section, key = chance.choice((section, *TEXTS)), chance.choice((key, *TEXTS))
        if role == ENVIRONMENT:
            section, key = section.upper(), key.upper()
        return section, key, written(value) if role == TOML or not isinstance(value, str) else value

    async def check(self, given: Input) -> None:
        text = given.data.decode("utf-8", "surrogateescape")  # as Python takes arguments and variables
        lines = [line for line in text.replace("\0", "").split("\n") if line]
        try:
            if given.role == TOML:
                self._file.write_bytes(given.data)
                settings = load(self._file, {}, ())
            elif given.role == ENVIRONMENT:
                settings = load(None, dict(line.split("=", 1) for line in lines if "=" in line), ())
            else:
                settings = load(None, {}, lines)
            self._use(settings)
        except Trouble as trouble:
            say_why(str(trouble))
            if SECRET in str(trouble) and any(f": {section}." in str(trouble) for section in SECRETIVE):
                raise Broken(f"a secret is told: {trouble}") from trouble
        if load(None, {}, ["limits.connections=7"]).limits.connections != 7:
            raise Broken("the next settings are not taken")

    def _use(self, settings: Settings) -> None:
        """What a server does with them first."""
        rules_of(settings)
        tls_context(settings)
        shown(settings.database.url)
        Door(settings.limits, Times(), lambda _connection: None, settings.server.trusted_proxies)  # type: ignore[arg-type,return-value]


def say_why(reason: str) -> None:
    """Raises Broken: this is no line for a person to read."""
    if not reason or "Traceback" in reason or "\n" in reason.strip():
        raise Broken(f"this is said: {reason!r}")


@asynccontextmanager
async def imports() -> AsyncIterator[Imports]:
    with folder() as path:
        target = Imports(path)
        await carry_out(target._settings, records(), create=True)
        yield target


@asynccontextmanager
async def configurations() -> AsyncIterator[Configurations]:
    with folder() as path:
        yield Configurations(path)
