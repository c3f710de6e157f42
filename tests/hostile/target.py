"""What is attacked: a server process of this script's own, the accounts and devices on it, and what it uses.

Innocents are never the attackers' business: `owner-…`, `guest-…` and their lamps. Attackers are `foe-…`, each with a lamp
of its own; the first three lamps are shared with all of them. `hoarder` has a bridge with many sub-devices and many grants.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple

import msgspec
from joserfc.jwk import ECKey, KeySet, RSAKey

OWNERS: Final = 10
GUESTS: Final = 15  # so a pair's turn comes 8 times a minute at 20 shares a second: fewer than limits.offers_per_minute
FOES: Final = 64
LOUD: Final = 3  # attackers whose lamps are shared with all others
GRANTEES: Final = 200
SUB_DEVICES: Final = 100
PK: Final = "P1"
SAMPLE_S: Final = 0.1
ISSUER: Final = "https://id.example"
AUDIENCE: Final = "sharesrv"
START_S: Final = 30.0


class Target(msgspec.Struct, frozen=True):
    """Where the server is, for how long to attack it, and the public keys of the identity provider that it believes."""

    ws_port: int
    http_port: int
    seconds: float
    jwks: str

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.ws_port}/api/ws"


def token(account: str) -> str:
    return f"at-{account}"


def key(device: str) -> str:
    return f"key-{device}"


def uid(account: str) -> str:
    return f"{account}@example.org"


def lamp(account: str) -> str:
    return f"lamp-of-{account}"


def hello(account: str, **fields: Any) -> dict[str, Any]:
    """The `userOnline` of an account."""
    frame = {"action": "userOnline", "at": token(account), "apikey": account, "userAgent": "app", "sequence": "1"}
    return frame | fields


def register(device: str, **fields: Any) -> dict[str, Any]:
    """The `register` of a device."""
    frame = {"action": "register", "deviceid": device, "apikey": key(device), "userAgent": "device", "sequence": "1"}
    return frame | fields


def records() -> Iterator[dict[str, Any]]:
    """What is imported."""
    owners = [*(f"owner-{number}" for number in range(OWNERS)), *(f"foe-{number}" for number in range(FOES)), "hoarder"]
    guests = [*(f"guest-{number}" for number in range(GUESTS)), "newcomer", "victim"]
    grantees = [f"grantee-{number}" for number in range(GRANTEES)]
    for account in (*owners, *guests, *grantees):
        yield {"account": {"apikey": account, "uid": uid(account), "nickname": account}}
        yield {"token": {"apikey": account, "at": token(account)}}
    for owner in owners:
        yield _device(lamp(owner), owner)
    for number in range(SUB_DEVICES):
        yield _device(f"sub-{number}", "hoarder")
    for number in range(LOUD):
        for sharee in range(LOUD, FOES):
            yield {"share": {"device": lamp(f"foe-{number}"), "sharee": f"foe-{sharee}"}}
    for grantee in grantees:
        yield {"share": {"device": lamp("hoarder"), "sharee": grantee}}


def _device(id: str, owner: str) -> dict[str, Any]:
    device = {"deviceid": id, "owner": owner, "name": "Lamp", "devicekey": key(id), "pk": PK, "dk": id}
    return {"device": device | ({"bridge": lamp(owner)} if id.startswith("sub-") else {})}


class Use(NamedTuple):
    """What the server has of the machine, where it has /proc."""

    at_s: float
    resident_bytes: int
    descriptors: int


class Server:
    """The process. A thread looks at what it uses all the time."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._log = log
        self._read_bytes = 0
        self.uses: list[Use] = []
        self._ended = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)

    def use(self) -> Use | None:
        folder = Path(f"/proc/{self.pid}")
        with suppress(OSError):
            pages = int((folder / "statm").read_text().split()[1])
            return Use(monotonic(), pages * os.sysconf("SC_PAGE_SIZE"), sum(1 for _ in (folder / "fd").iterdir()))
        return None

    def between(self, start_s: float, end_s: float) -> list[Use]:
        return [use for use in self.uses if start_s <= use.at_s <= end_s]

    def complaints(self) -> str:
        """What it has logged of errors since the last call."""
        with self._log.open() as log:
            log.seek(self._read_bytes)
            said = log.read()
            self._read_bytes = log.tell()
        lines = [line for line in said.splitlines() if "Traceback" in line or "error" in line.lower()]
        return f"{len(lines)} errors in the log, first: {lines[0][:300]}" if lines else ""

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            if (use := self.use()) is not None:
                self.uses.append(use)

    @contextmanager
    def watched(self) -> Iterator[None]:
        self._watching.start()
        try:
            yield
        finally:
            self._ended.set()
            self._watching.join()


def ahead() -> None:
    """Let this process go before all others, where the system allows it: what others take from it is not what we measure."""
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def keys() -> tuple[RSAKey, ECKey]:
    return RSAKey.generate_key(2048, {"kid": "r"}), ECKey.generate_key("P-256", {"kid": "e"})


@contextmanager
def served(folder: Path, seconds: float) -> Iterator[tuple[Server, Target]]:
    """A server with default limits on a database in this folder, killed with the block."""
    jwks = json.dumps(KeySet(list(keys())).as_dict(private=False))
    (folder / "jwks.json").write_text(jwks)
    (folder / "records").write_text("".join(json.dumps(record) + "\n" for record in records()))
    settings = {
        "database.url": f"sqlite:///{folder / 'share.db'}",
        "server.ws_port": 0,
        "server.http_port": 0,
        "auth.jwt_jwks": folder / "jwks.json",
        "auth.jwt_issuer": ISSUER,
        "auth.jwt_audience": AUDIENCE,
    }
    options = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    program = [sys.executable, "-m", "sharesrv"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHARESRV_")}
    subprocess.run(
        [*program, "import", folder / "records", *options], check=True, stdout=subprocess.DEVNULL, env=environment
    )
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "env": environment, "preexec_fn": ahead}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([*program, "serve", *options], stderr=log, **streams) as process,
    ):
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            ports = [
                int(word.rpartition(":")[2].partition("/")[0])
                for word in said.replace(",", "").split()
                if "://1" in word
            ]
            if not ports:
                raise RuntimeError(f"the server did not start: {(folder / 'log').read_text()}")
            server = Server(process, folder / "log")
            with server.watched():
                yield server, Target(ports[0], ports[1], seconds, jwks)
        finally:
            process.kill()
