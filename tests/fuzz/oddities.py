"""What is said wrong: valid examples with keys dropped, repeated or renamed, odd values and odd text, and pure noise.

All of it follows from the generator of chance that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from json import dumps
from random import Random
from typing import Any, Final

Pairs = list[tuple[str, Any]]


class Literally(str):
    """JSON that is written as it stands."""

    __slots__ = ()


TEXTS: Final = (
    "", " ", "\t\n", "0", "-1", "15.0", "true", "null", "\x00", "a\x00b", "\x1b[31m", "\x7f", "\u0085", "\u2028",
    "\ufeff", "\u202eevil", "\u200b", "e\u0301" * 30, "中" * 10, "中" * 11, "\uff37" * 21, "😀" * 21, "👩\u200d👧",
    "\U000e0001" * 70, "\u0131", "ß" * 64, "a" * 64, "a" * 65, "a" * 128, "a" * 129, "b" * 5000, "1" * 19, "9" * 40,
    "٣", "1e3", "+1", "../..", "%00", "%", "{}", "[]", "' OR 1=1 --", "${jndi:x}", "<b>", '"', "\\", "\\u0000",
    "owner", "guest", "lamp", "bridge", "sub-1", "app", "device",
)  # fmt: skip
LITERALS: Final = (
    "null", "true", "false", "0", "-0", "-1", "1", "2", "3", "15", "16", "15.0", "1e1", "1e999", "-1e-999", "0.1",
    "NaN", "Infinity", "9007199254740993", "9223372036854775807", "9223372036854775808", "1" + "0" * 63,
    "1" + "0" * 64, "7" * 5000, "01", "+1", '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\u00e9"', '"\\x41"',
    '"\n"', "''", "[]", "{}", "[[]]", "[null]", "[{}]", '{"a":{"b":{"c":[1,2,3]}}}', "[" * 300 + "]" * 300,
    "[" * 3000, '{"a":' * 2000 + "1" + "}" * 2000, "", "undefined",
)  # fmt: skip
KEYS: Final = (
    "", "action", "params", "sequence", "result", "error", "apikey", "deviceid", "userAgent", "uid", "timers", "note",
    "permit", "Action", "\\u0061ction", "a" * 300, "\U0001f600", "\u0000", "__class__", "s_seq", "selfApikey",
)  # fmt: skip
BYTES: Final = (
    b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xe4\xb8", b"\r\n", b"\n",
    b'"', b"\\", b"\\u", b"\\ud800", b"{", b"}", b"[", b"]", b",", b":", b"%", b"%00", b"%ff", b"+", b"&", b"=", b";",
    b"\x1b", b"/*", b" ",
)  # fmt: skip


class Chance(Random):
    """A generator of chance, with the choices that are made again and again."""

    def one_in(self, number: int) -> bool:
        return self.randrange(number) == 0

    def value(self) -> Any:
        """Anything but what is wanted."""
        kind = self.randrange(8)
        if kind < 3:
            return self.choice(TEXTS)
        if kind < 6:
            return Literally(self.choice(LITERALS))
        if kind == 6:
            return [self.value() for _ in range(self.randrange(3))]
        return [(self.choice(KEYS), self.value()) for _ in range(self.randrange(1, 3))]

    def noise(self, most: int = 60) -> bytes:
        return self.randbytes(self.randrange(most))

    def scarred(self, data: bytes) -> bytes:
        """Bytes of which some have been lost, repeated, changed or added."""
        at = self.randrange(len(data) + 1)
        end = min(len(data), at + 1 + int(self.expovariate(0.1)))
        match self.randrange(6):
            case 0:
                return data[:at]
            case 1:
                return data[:at] + data[end:]
            case 2:
                return data[:end] + data[at:]
            case 3 if data:
                at = min(at, len(data) - 1)
                return data[:at] + bytes((data[at] ^ 1 << self.randrange(8),)) + data[at + 1 :]
            case 4:
                return data[:at] + self.noise(8) + data[at:]
        return data[:at] + self.choice(BYTES) + data[at:]

    def json(self, example: Mapping[str, Any], live: Sequence[str] = ()) -> bytes:
        """An object much like the example, as JSON or nearly so. `live` is text that means something just now."""
        kind = self.randrange(20)
        if kind == 0:
            return self.noise()
        if kind == 1:
            return written(self.value()).encode("utf-8", "surrogatepass")
        pairs = _pairs(example)
        for _ in range(self.choice((0, 1, 1, 1, 2, 4))):
            self._change(pairs, live)
        data = written(pairs, self.choice((",", ", ", " ,\n\t"))).encode("utf-8", "surrogatepass")
        return self.scarred(data) if self.one_in(6) else data

    def _change(self, pairs: Pairs, live: Sequence[str]) -> None:
        """Make one thing of an object odd, or of an object in it."""
        inner = [value for _key, value in pairs if isinstance(value, list) and value and isinstance(value[0], tuple)]
        if inner and self.one_in(2):
            self._change(self.choice(inner), live)
            return
        at = self.randrange(len(pairs)) if pairs else -1
        key, value = pairs[at] if pairs else ("", None)
        match self.randrange(10):
            case 0 if pairs:
                del pairs[at]
            case 1:
                pairs.insert(self.randrange(len(pairs) + 1), (key, self.value()))
            case 2 if pairs:
                pairs[at] = self.choice(KEYS), value
            case 3:
                pairs.append((self.choice(KEYS), self.value()))
            case 4 if len(pairs) > 1:
                other = self.randrange(len(pairs))
                pairs[at], pairs[other] = (key, pairs[other][1]), (pairs[other][0], value)
            case 5 | 6 if pairs and live:
                pairs[at] = key, self.choice(live)
            case _ if pairs:
                pairs[at] = key, self.value()


def _pairs(value: Any) -> Any:
    """The members of objects as lists, so that they can be repeated."""
    if isinstance(value, Mapping):
        return [(key, _pairs(each)) for key, each in value.items()]
    return [_pairs(each) for each in value] if isinstance(value, list) else value


def written(value: Any, comma: str = ",") -> str:
    """JSON, with pairs as objects."""
    if isinstance(value, Literally):
        return str(value)
    if isinstance(value, list):
        if value and isinstance(value[0], tuple):
            return "{" + comma.join(f"{_key(key)}:{written(each, comma)}" for key, each in value) + "}"
        return "[" + comma.join(written(each, comma) for each in value) + "]"
    return dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    return f'"{key}"' if key.startswith("\\u") else dumps(key, ensure_ascii=False)


def shrunk(data: bytes, fails: Callable[[bytes], bool], tries: int = 150) -> bytes:
    """The bytes, less what is not needed to fail; a little, not as much as possible."""
    size = len(data) // 2
    while size and tries:
        at = 0
        while at < len(data) and tries:
            tries -= 1
            less = data[:at] + data[at + size :]
            if fails(less):
                data = less
            else:
                at += size
        size //= 2
    return data
