"""Guesses, replays and forgeries: nobody gets in."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import secrets
import time
from collections.abc import Iterator
from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from tests.hostile.attacker import Attack, Raid
from tests.hostile.target import AUDIENCE, ISSUER, SUB_DEVICES, hello, lamp, register, token, uid
from tests.raw import CUT_OFF, text

CROWD: Final = 20
LONG: Final = 4096  # characters, beyond which no token is looked at


async def guess(raid: Raid, address: int, frame: Any, *promised: int) -> None:
    """A handshake that must not be let in, from an address of its own."""
    async with raid.opened(address=f"127.0.8.{address + 1}") as raw:
        await raw.send(text(frame))
        answer = await raw.json()
        raid.expect("a guess", answer["error"], *promised)
        if "key-" in answer.get("apikey", ""):
            raid.wrong.append("a devicekey was told")
        raid.expect("its close", await raw.closed(), 4401, 4406, 4412, CUT_OFF)


async def devicekeys(raid: Raid) -> None:
    """Wrong devicekeys of one device: 401, beyond 20 a minute 412; the right one still gets in."""
    device = f"sub-{secrets.randbelow(SUB_DEVICES)}"  # another time most likely another one

    async def one(number: int) -> None:
        while raid.goes_on:
            await guess(raid, number, register(device, apikey=secrets.token_hex()), 401, 412)

    await raid.crowd(CROWD, one)
    raid.require(401, 412)
    if raid.seen["401"] > 20:
        raid.wrong.append(f"{raid.seen['401']} devicekeys were tried")
    async with raid.opened(register(device)):
        raid.note("the right one got in")


async def tokens(raid: Raid) -> None:
    """Tokens at random: 401."""

    async def one(number: int) -> None:
        while raid.goes_on:
            await guess(raid, number, hello("victim", at=secrets.token_hex(32)), 401)

    await raid.crowd(CROWD, one)


async def share_codes(raid: Raid) -> None:
    """Answers to offers that were never made, by every kind of name: 400."""

    async def one(number: int) -> None:
        async with raid.app(number) as raw:
            while raid.goes_on:
                frame = {"error": 0, "result": 2, "deviceid": lamp("owner-0"), "sequence": "1"}
                await raw.send(text(frame | {"s_seq": secrets.token_urlsafe(16), "sequence": secrets.token_hex(8)}))
                raid.expect("a guessed s_seq", await raw.error(), 400)
                await asyncio.sleep(0.02)

    await raid.crowd(CROWD, one)


async def replays(raid: Raid) -> None:
    """Handshakes, requests and answers are sent again by others: each is refused, or told again and nothing changes."""

    async def one(number: int) -> None:
        sharer, sharee = f"foe-{2 * number}", f"foe-{2 * number + 1}"
        params = {"uid": uid(sharee), "deviceName": "Lamp", "userName": "Foe", "note": ""}
        request = {"apikey": sharer, "deviceid": lamp(sharer), "userAgent": "app", "sequence": "1", "params": params}
        async with raid.opened(hello(sharer)) as asks, raid.opened(hello(sharee)) as answers:
            while raid.goes_on:
                await asks.send(text(request | {"action": "cancelShare"}), text(request | {"action": "share"}))
                raid.expect("cancelShare", await _answer(asks), 0)
                offer = await _pushed(answers, "share")
                answer = {
                    "error": 0,
                    "result": 2,
                    "deviceid": offer["deviceid"],
                    "sequence": "1",
                    "s_seq": offer["s_seq"],
                }
                for frame, promised in ((answer, 0), (answer, 0), (answer | {"result": 3}, 403)):
                    await answers.send(text(frame))
                    raid.expect(f"an answer again, {frame['result']}", await _answer(answers), promised)
                raid.expect("the sharer's end", await _answer(asks), 0)
                await asks.send(text(answer))
                raid.expect("its own offer answered", await _answer(asks), 400)
                await asyncio.sleep(7)

    await raid.crowd(CROWD // 2, one)


async def _answer(raw: Any) -> int:
    while "error" not in (frame := await raw.json()):
        pass
    return int(frame["error"])


async def _pushed(raw: Any, action: str) -> Any:
    while (frame := await raw.json()).get("action") != action:
        pass
    return frame


async def others_apikeys(raid: Raid) -> None:
    """Commands in the name of an owner, and on an owner's device: 401, 403, or as if there were nothing."""
    promised = {
        "share": (401, 403),
        "updateShare": (401, 403),
        "update": (401, 403),
        "query": (401, 403),
        "cancelShare": (0, 401),
    }

    async def one(number: int) -> None:
        account = f"foe-{number}"
        params = {"uid": uid(account), "deviceName": "Lamp", "userName": "Foe", "note": "", "permit": 15}
        async with raid.opened(hello(account)) as raw:
            while raid.goes_on:
                for action, errors in promised.items():
                    for apikey in ("owner-0", account):
                        frame = {"action": action, "apikey": apikey, "deviceid": lamp("owner-0"), "userAgent": "app"}
                        content: Any = [] if action == "query" else params
                        await raw.send(text(frame | {"sequence": "1", "params": content}))
                        raid.expect(f"{action} as {apikey}", await _answer(raw), *errors)
                        await asyncio.sleep(0.025)

    await raid.crowd(CROWD, one)
    for number in range(3):
        await guess(raid, number, hello("owner-0", at=token(f"foe-{number}")), 401)


def forged(jwks: str) -> Iterator[tuple[str, str]]:
    """Tokens of the victim that the identity provider never gave, by the name of the trick."""
    now_s = int(time.time())
    claims = {"sub": "victim", "iss": ISSUER, "aud": AUDIENCE, "exp": now_s + 3600}
    keys = KeySet.import_key_set(json.loads(jwks))
    body = _part(claims)
    for alg in ("none", "None", "NONE", "", "HS256", "ES256", "RS256"):
        yield f"alg {alg}, no signature", f"{_part({'alg': alg, 'kid': 'e'})}.{body}."
    for public in keys.keys:
        assert isinstance(public, ECKey | RSAKey)
        for secret in (public.as_pem(private=False), json.dumps(public.as_dict(private=False)).encode()):
            start = f"{_part({'alg': 'HS256', 'kid': public.kid})}.{body}"
            yield "HS256 with the public key", f"{start}.{_coded(hmac.digest(secret, start.encode(), 'sha256'))}"
    own = ECKey.generate_key("P-256")
    for kid in ("e", "r", "unknown", "", "../../etc/passwd", "' OR 1=1", "x" * 10_000):
        yield f"own key, kid {kid[:20]}", jwt.encode({"alg": "ES256", "kid": kid}, claims, own)
    jwk = own.as_dict(private=False)
    for name, value in (
        ("jwk", jwk),
        ("jku", "http://127.0.0.1:9/"),
        ("x5u", "http://127.0.0.1:9/"),
        ("crit", ["b64"]),
    ):
        yield f"own key by {name}", f"{_part({'alg': 'ES256', 'kid': 'e', name: value})}.{body}.{'A' * 86}"
    yield "huge", f"{_part({'alg': 'ES256', 'kid': 'e'})}.{_part(claims | {'x': 'x' * 40_000})}.{'A' * 86}"
    yield "deep", f"{_coded(b'[' * 20_000)}.{body}.{'A' * 86}"
    yield "five parts", f"{_part({'alg': 'dir', 'enc': 'A128GCM'})}....{body}"
    yield "a surrogate", f"{_part({'alg': 'ES256', 'kid': chr(0xD800)})}.{body}.{'A' * 86}"


def _part(content: Any) -> str:
    return _coded(json.dumps(content).encode())


def _coded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


async def forged_tokens(raid: Raid) -> None:
    """Each is 401 at the WebSocket, and at the HTTP door."""
    cases = list(forged(raid.target.jwks))

    async def one(number: int) -> None:
        at = number
        while raid.goes_on:
            name, found = cases[at % len(cases)]
            async with raid.opened(address=f"127.0.8.{number + 1}") as raw:
                await raw.send(text(hello("victim", at=found)))
                raid.expect(name, await raw.error(), 401, *((400,) if len(found) > LONG else ()))
            async with raid.dialled(http=True) as raw:
                lines = ("Host: localhost", f"Authorization: {found}", "Connection: close")
                await raw.send("\r\n".join(("GET /api/user/device HTTP/1.1", *lines, "", "")).encode())
                told = await raw.rest()
                raid.expect(
                    f"{name} over HTTP", 401 if b'"error":401' in told or b" 400 " in told[:20] else told[:200], 401
                )
            at += CROWD
            await asyncio.sleep(0.02)

    await raid.crowd(CROWD, one)


ATTACKS: Final = [
    Attack("guessed devicekeys", devicekeys),
    Attack("guessed tokens", tokens),
    Attack("guessed offers", share_codes),
    Attack("replays", replays),
    Attack("other people's apikeys", others_apikeys),
    Attack("forged JWTs", forged_tokens),
]
