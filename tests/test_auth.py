from __future__ import annotations

import re

from sharesrv.auth import digest, new_token


def test_a_token_has_256_random_bits_in_characters_that_need_no_escaping() -> None:
    tokens = {new_token() for _ in range(200)}
    assert len(tokens) == 200
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", token) for token in tokens)


def test_a_digest_is_the_sha_256_in_hex() -> None:
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_digest_takes_any_text() -> None:
    assert digest("тайна 🔑") == digest("тайна 🔑")
    assert digest("Secret") != digest("secret")
