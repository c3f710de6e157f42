"""The tokens of an identity provider, whose key set is a file or a URL."""

from __future__ import annotations

import http.server
import json
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from sharesrv.auth import Tokens
from sharesrv.domain.record_checks import GrantRecord
from sharesrv.errors import Refusal, Refused, Trouble
from sharesrv.jwks import Issuer, Jwks
from tests.raw import hello
from tests.wire import GUEST, OTHER, OWNER, fill, server
from tests.world import START_MS, FakeClock

Key = RSAKey | ECKey | OKPKey
NOW_S = START_MS // 1000


def keys() -> dict[str, Key]:
    return {
        "RS256": RSAKey.generate_key(2048, {"kid": "r"}),
        "ES256": ECKey.generate_key("P-256", {"kid": "e"}),
        "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "o"}),
    }


KEYS = keys()


def public(*found: Key) -> str:
    return json.dumps(KeySet(list(found)).as_dict(private=False))


def token(algorithm: str = "ES256", key: Key | None = None, **claims: Any) -> str:
    key = key or KEYS[algorithm]
    said: dict[str, Any] = {"sub": OWNER, "iss": "https://id.example", "aud": "sharesrv", "exp": NOW_S + 60} | claims
    header = {"alg": algorithm, "kid": key.kid}
    given = {name: value for name, value in said.items() if value is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        return jws.serialize_compact(header, json.dumps(given).encode(), key, algorithms=[algorithm])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(public(*KEYS.values()))
    return path


async def verifier(source: str, clock: FakeClock | None = None) -> Jwks:
    jwks = Jwks(Issuer(source, "https://id.example", "sharesrv", "sub"), (clock or FakeClock()).now_ms)
    await jwks.load()
    return jwks


@pytest.mark.parametrize("algorithm", KEYS)
async def test_each_algorithm_proves_its_account(file: Path, algorithm: str) -> None:
    assert await (await verifier(str(file))).account_of(token(algorithm)) == OWNER


@pytest.mark.parametrize(
    ("claims", "refusal"),
    [
        ({"exp": NOW_S - 1}, Refusal.TOKEN_EXPIRED),
        ({"exp": None}, Refusal.UNKNOWN_TOKEN),
        ({"iss": "https://other.example"}, Refusal.UNKNOWN_TOKEN),
        ({"iss": None}, Refusal.UNKNOWN_TOKEN),
        ({"aud": "other"}, Refusal.UNKNOWN_TOKEN),
        ({"aud": None}, Refusal.UNKNOWN_TOKEN),
        ({"sub": None}, Refusal.UNKNOWN_TOKEN),
        ({"sub": 5}, Refusal.UNKNOWN_TOKEN),
        ({"sub": ""}, Refusal.UNKNOWN_TOKEN),
        ({"sub": "a\0b"}, Refusal.UNKNOWN_TOKEN),
        ({"nbf": NOW_S + 50}, Refusal.UNKNOWN_TOKEN),
        ({"exp": "tomorrow"}, Refusal.UNKNOWN_TOKEN),
        # Of several refusals 401 comes before 402 (PROTOCOL 2.2).
        ({"exp": NOW_S - 1, "nbf": NOW_S + 50}, Refusal.UNKNOWN_TOKEN),
        ({"exp": NOW_S - 1, "iss": "https://other.example"}, Refusal.UNKNOWN_TOKEN),
        ({"exp": NOW_S - 1, "sub": "a\0b"}, Refusal.UNKNOWN_TOKEN),
    ],
    ids=str,
)
async def test_what_a_token_must_say(file: Path, claims: dict[str, Any], refusal: Refusal) -> None:
    with pytest.raises(Refused) as refused:
        await (await verifier(str(file))).account_of(token(**claims))
    assert refused.value.refusal is refusal


async def test_a_token_by_another_key_or_none_proves_nothing(file: Path) -> None:
    jwks = await verifier(str(file))
    other = ECKey.generate_key("P-256", {"kid": "e"})
    unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJvd25lciJ9."
    for bad in (token(key=other), unsigned, "a.b.c", "..", token()[:-2] + "AA"):
        with pytest.raises(Refused) as refused:
            await jwks.account_of(bad)
        assert refused.value.refusal is Refusal.UNKNOWN_TOKEN


async def test_keys_rotate_in_a_file(file: Path) -> None:
    jwks = await verifier(str(file))
    new = ECKey.generate_key("P-256", {"kid": "new"})
    with pytest.raises(Refused):
        await jwks.account_of(token(key=new))
    file.with_suffix(".next").write_text(public(new) + " ")
    file.with_suffix(".next").replace(file)
    assert await jwks.account_of(token(key=new)) == OWNER
    with pytest.raises(Refused):
        await jwks.account_of(token())


async def test_a_file_that_cannot_be_read_keeps_the_old_keys_but_not_at_the_start(file: Path, tmp_path: Path) -> None:
    jwks = await verifier(str(file))
    for source, said in ((tmp_path / "none.json", "No such file"), (tmp_path, "is a folder")):
        with pytest.raises(Trouble, match=f"auth.jwt_jwks: {source}: {said}"):
            await verifier(str(source))
    for number, content in enumerate(("no keys", "[]", "{}", "5", '{"keys":[]}', "[" * 100_000)):
        file.write_text(content)
        os.utime(file, (number, number))
        assert await jwks.account_of(token()) == OWNER
        with pytest.raises(Trouble, match=f"auth.jwt_jwks: {file}: is not a JSON Web Key Set"):
            await verifier(str(file))


class Served(http.server.BaseHTTPRequestHandler):
    keys = ""
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200 if self.keys else 503)
        self.end_headers()
        self.wfile.write(self.keys.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Served.keys, Served.asked = public(*KEYS.values()), 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Served) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}/jwks"
        found.shutdown()
        thread.join()


async def test_keys_rotate_at_a_url(url: str) -> None:
    clock = FakeClock()
    jwks = await verifier(url, clock)
    new = ECKey.generate_key("P-256", {"kid": "new"})
    Served.keys = public(new)
    with pytest.raises(Refused):
        await jwks.account_of(token(key=new))
    assert (await jwks.account_of(token()), Served.asked) == (OWNER, 1)
    clock.advance(ms=10_001)
    assert (await jwks.account_of(token(key=new)), Served.asked) == (OWNER, 2)
    with pytest.raises(Refused):
        await jwks.account_of(token())
    clock.advance(ms=10_001)
    Served.keys = ""
    with pytest.raises(Refused):
        await jwks.account_of(token())
    assert (await jwks.account_of(token(key=new)), Served.asked) == (OWNER, 3)


async def test_a_url_may_come_up_later(url: str) -> None:
    clock = FakeClock()
    good, Served.keys = Served.keys, ""
    jwks = await verifier(url, clock)
    Served.keys = good
    clock.advance(ms=10_001)
    assert await jwks.account_of(token()) == OWNER


async def refusal(jwks: Jwks, shown: str) -> Refusal:
    with pytest.raises(Refused) as refused:
        await jwks.account_of(shown)
    return refused.value.refusal


async def test_while_the_issuer_is_away_a_token_whose_key_is_not_known_is_not_refused(url: str) -> None:
    clock = FakeClock()
    jwks = await verifier(url, clock)
    new = ECKey.generate_key("P-256", {"kid": "new"})
    assert await refusal(jwks, token(key=new)) is Refusal.UNKNOWN_TOKEN
    good, Served.keys = Served.keys, ""
    clock.advance(ms=10_001)
    assert await refusal(jwks, token(key=new)) is Refusal.ISSUER_AWAY
    assert await jwks.account_of(token()) == OWNER
    assert await refusal(jwks, token(aud="other")) is Refusal.UNKNOWN_TOKEN
    Served.keys = good
    clock.advance(ms=10_001)
    assert await refusal(jwks, token(key=new)) is Refusal.UNKNOWN_TOKEN


async def test_an_issuer_that_is_away_closes_with_try_again_and_no_answer(database: Path, url: str) -> None:
    Served.keys = ""
    async with server(database, f"auth.jwt_jwks={url}") as running:
        async with running.wire() as wire:
            await wire.send(hello(OWNER, at=token()))
            assert await wire.closed() == 1013
        address = f"http://127.0.0.1:{running.running.http_port}/api/user/device"
        async with (
            aiohttp.ClientSession() as session,
            session.get(address, headers={"Authorization": token()}) as answer,
        ):
            assert (await answer.json())["error"] == 500


def test_our_own_tokens_need_no_verifying(file: Path) -> None:
    assert Tokens().own("a.b.c") is not None
    tokens = Tokens(Jwks(Issuer(str(file), "", "", "sub"), FakeClock().now_ms))
    assert tokens.own("abc") is not None
    assert tokens.own("a.b.c") is None


async def test_both_doors_take_them(database: Path, file: Path) -> None:
    settings = [f"auth.jwt_jwks={file}", "auth.jwt_claim=account", "limits.handshakes_per_minute=0"]
    far: dict[str, Any] = {"exp": 4102444800, "account": GUEST}
    async with (
        server(database, *settings) as running,
        running.wire() as guest,
        running.wire() as old,
        running.wire() as own,
    ):
        assert (await guest.online(GUEST, at=token(**far)))["error"] == 0
        assert (await old.online(GUEST, at=token(**far | {"exp": 1})))["error"] == 402
        assert (await own.online(OWNER))["error"] == 0
        url = f"http://127.0.0.1:{running.running.http_port}/api/user/device"
        async with aiohttp.ClientSession() as session:
            for shown, error in ((token(**far), 0), (token(**far | {"account": "nobody"}), 401), ("a.b.c", 401)):
                async with session.get(url, headers={"Authorization": f"Bearer {shown}"}) as answer:
                    assert (await answer.json())["error"] == error


@pytest.mark.parametrize(
    ("account", "apikey", "error"),
    [(GUEST, GUEST, 402), (GUEST, OWNER, 402), (GUEST, OTHER, 401), (GUEST, "nobody", 401), ("nobody", "nobody", 401)],
)
async def test_2_2_of_an_expired_token_a_wrong_apikey_is_401_before_402(
    database: Path, file: Path, account: str, apikey: str, error: int
) -> None:
    """The guest has a grant of the owner's."""
    fill(database, grants=[GrantRecord("lamp", GUEST, 0, "", 0)])
    async with server(database, f"auth.jwt_jwks={file}", filled=False) as running, running.wire() as wire:
        await wire.send(hello(apikey, at=token(sub=account, exp=1)))
        assert (await wire.heard())["error"] == error
        assert await wire.closed() == 4401


@pytest.mark.parametrize("account", ["\ud800", "a\0b", ""])
async def test_a_claim_that_cannot_be_stored_is_no_account(file: Path, account: str) -> None:
    jwks = await verifier(str(file), FakeClock())
    with pytest.raises(Refused) as refused:
        await jwks.account_of(token(sub=account))
    assert refused.value.refusal is Refusal.UNKNOWN_TOKEN
