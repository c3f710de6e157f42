from __future__ import annotations

import pytest

from sharesrv.protocol.faults import Wrong, not_json, nul_in, wrong


@pytest.mark.parametrize(
    ("said", "path", "reason"),
    [
        ("Object missing required field `uid` - at `$.params`", "params.uid", "params has no uid"),
        ("Object missing required field `uid`", "uid", "the body has no uid"),
        ("Object contains unknown field `nick` - at `$.account`", "account.nick", "there is no field account.nick"),
        ("Object contains unknown field `a\nb`", "a\nb", "there is no field a\nb"),
        ("Expected `object`, got `array`", "", "the body must be an object"),
        ("Expected `int`, got `str` - at `$.permit`", "permit", "permit must be a whole number 0…15"),
        ("Expected `str`, got `int` - at `$.params[3]`", "params[3]", "params[3] must be text"),
        ("Invalid enum value 5 - at `$.result`", "result", "result must be 2 (accepted) or 3 (refused)"),
        ("Expected `str`, got `int` - at `$.lamp`", "lamp", "lamp must be on"),
        ("Expected `str`, got `int` - at `$.strange`", "strange", "strange: Expected `str`, got `int`"),
        ("note is blank - at `$.share`", "share.note", "share.note is blank"),
        ("note is blank", "note", "note is blank"),
        ("pk and dk come together - at `$.device`", "device", "device: pk and dk come together"),
        ("pk and dk come together", "", "pk and dk come together"),
    ],
)
def test_a_wrong_value_is_named_with_its_path_and_what_it_must_be(said: str, path: str, reason: str) -> None:
    assert wrong(said, "the body", {"lamp": "on"}) == Wrong(path, reason)


def test_a_value_that_was_read_apart_is_named_with_the_path_of_the_whole() -> None:
    said = "Expected `object`, got `int` - at `$[1]`"
    assert wrong(said, "the frame", inside="params.timers").reason == "params.timers[1] must be an object"


@pytest.mark.parametrize(
    ("data", "error", "reason"),
    [
        (b"{", "truncated", "it is not JSON"),
        (b"[" * 100_000, "depth", "it is not JSON"),
        (b"NaN", "invalid character", "it is not JSON"),
        (b'"\\ud800"', "truncated", "the text has half a surrogate pair"),
    ],
    ids=range(4),
)
def test_what_is_not_json_is_told_from_half_a_surrogate_pair(data: bytes, error: str, reason: str) -> None:
    assert not_json(ValueError(error), data, "it") == reason


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a", None),
        ({"a": ["b", 1, None, {}]}, None),
        ("a\0", Wrong("", "the character U+0000 is not allowed")),
        ({"\0": 1}, Wrong("", "the character U+0000 is not allowed")),
        ({"a": {"\0": 1}}, Wrong("a", "a has the character U+0000")),
        ({"a": {"b": "\0"}}, Wrong("a.b", "a.b has the character U+0000")),
        ({"a": [1, "\0"]}, Wrong("a[1]", "a[1] has the character U+0000")),
    ],
)
def test_a_u_0000_is_named_with_its_path(value: object, found: Wrong | None) -> None:
    assert nul_in(value) == found
