"""Settings: what counts where several speak, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from sharesrv.cli.options import rules_of
from sharesrv.config import SECTIONS, Settings, load, shown
from sharesrv.domain.rules import Rules
from sharesrv.errors import Trouble

DEFAULTS: dict[str, dict[str, object]] = {
    "server": {
        "host": "127.0.0.1",
        "ws_port": 8765,
        "http_port": 8080,
        "public_host": "",
        "tls_cert": "",
        "tls_key": "",
        "trusted_proxies": "",
        "drain_seconds": 0.0,
    },
    "database": {"url": "sqlite:///sharesrv.db", "batch": 64},
    "bus": {"url": ""},
    "sessions": {"policy": "single", "heartbeat": 145},
    "sharing": {
        "confirm_timeout": 180.0,
        "resend_cooldown": 180.0,
        "invitation_seconds": 86400.0,
        "bridge_cascade": True,
    },
    "devices": {"response_timeout": 5.0},
    "limits": {
        "frame_bytes": 65536,
        "frames_per_second": 50,
        "frame_burst": 100,
        "handshakes_per_minute": 120,
        "unknown_uids_per_minute": 20,
        "open_offers": 100,
        "offers_per_minute": 10,
        "open_codes": 1000,
        "codes_per_minute": 60,
        "device_keys_per_minute": 20,
        "unsent_bytes": 1048576,
        "connections": 15000,
        "connections_per_second": 2000,
        "unauthenticated": 1000,
        "unauthenticated_per_address": 200,
        "http_connections": 1000,
    },
    "auth": {
        "token_days": 30.0,
        "admin_token": "",
        "admin_token_file": "",
        "viewer_token": "",
        "jwt_jwks": "",
        "jwt_issuer": "",
        "jwt_audience": "",
        "jwt_claim": "sub",
    },
    "retention": {
        "ended_shares_days": 365.0,
        "journal_days": 365.0,
        "dead_tokens_days": 30.0,
        "answers_days": 30.0,
    },
    "log": {"level": "info"},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sharesrv.toml"


def test_without_settings_the_defaults_of_the_contract_count() -> None:
    assert msgspec.to_builtins(load(None, {}, [])) == DEFAULTS
    assert load(None, {}, []) == Settings()
    assert rules_of(Settings()) == Rules()


@pytest.mark.parametrize(
    ("in_file", "in_environment", "in_set", "port"),
    [
        (None, None, None, 8765),
        ("1", None, None, 1),
        (None, "2", None, 2),
        (None, None, "3", 3),
        ("1", "2", None, 2),
        ("1", None, "3", 3),
        (None, "2", "3", 3),
        ("1", "2", "3", 3),
    ],
)
def test_set_is_above_environment_above_file_above_defaults(
    file: Path, in_file: str | None, in_environment: str | None, in_set: str | None, port: int
) -> None:
    file.write_text(f"[server]\nws_port = {in_file}\n" if in_file else "")
    environment = {"SHARESRV_SERVER__WS_PORT": in_environment} if in_environment else {}
    assignments = [f"server.ws_port={in_set}"] if in_set else []
    assert load(file, environment, assignments).server.ws_port == port


def test_settings_from_file_environment_and_set_are_combined(file: Path) -> None:
    file.write_text("[server]\nhost = '::1'\nws_port = 1\n[sharing]\nconfirm_timeout = 2\nbridge_cascade = false\n")
    settings = load(
        file, {"SHARESRV_SERVER__WS_PORT": "2", "SHARESRV_SESSIONS__POLICY": "multi"}, ["auth.token_days=1"]
    )
    assert (settings.server.host, settings.server.ws_port) == ("::1", 2)
    assert (settings.sharing.confirm_timeout, settings.sharing.bridge_cascade) == (2.0, False)
    assert (settings.sessions.policy, settings.auth.token_days) == ("multi", 1.0)


def test_of_two_assignments_the_later_counts() -> None:
    assert load(None, {}, ["server.ws_port=1", "server.ws_port=2"]).server.ws_port == 2


def test_other_variables_of_the_environment_are_ignored() -> None:
    environment = {"SERVER__WS_PORT": "1", "HOME": "/", "XSHARESRV_SERVER__WS_PORT": "1"}
    assert load(None, environment, []) == Settings()


def test_a_value_may_hold_an_equals_sign_and_spaces_stand_around_a_path() -> None:
    assert load(None, {}, [" database.url =sqlite:///a=b.db"]).database.url == "sqlite:///a=b.db"


@pytest.mark.parametrize(("text", "seconds"), [("0.3", 0.3), ("180", 180.0), ("1e-3", 0.001)])
def test_lengths_may_be_fractions(text: str, seconds: float) -> None:
    settings = load(None, {}, [f"sharing.confirm_timeout={text}", f"sharing.resend_cooldown={text}"])
    assert settings.sharing.confirm_timeout == seconds
    assert rules_of(settings).confirm_timeout_ms == rules_of(settings).resend_cooldown_ms == round(seconds * 1000)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("1", True), ("0", False)])
def test_a_switch_is_true_or_false(text: str, value: bool) -> None:
    assert load(None, {}, [f"sharing.bridge_cascade={text}"]).sharing.bridge_cascade is value


@pytest.mark.parametrize("name", DEFAULTS["limits"])
def test_every_limit_can_be_turned_off(name: str) -> None:
    settings = load(None, {}, [f"limits.{name}=0"])
    assert getattr(settings.limits, name) == 0


# What is said of a wrong one: a line that names the setting, what it must be, and where it was given.

WRONG_NUMBERS = ["", "many", "-1", "nan", "1e300", "[]", "0x10"]
WRONG: dict[str, list[str]] = {
    "a whole number 0…65535": ["65536", "1.5", *WRONG_NUMBERS],
    "a whole number, 0 (no limit) or more": ["1.5", "10000000000000000000000000", *WRONG_NUMBERS],
    "a whole number of seconds above 0": ["0", "1.5", *WRONG_NUMBERS],
    "a number of seconds, 0 or more": ["inf", *WRONG_NUMBERS],
    "a number of seconds above 0": ["0", "inf", *WRONG_NUMBERS],
    "a number of days above 0": ["0", "inf", *WRONG_NUMBERS],
    "a number of days, 0 (for ever) or more": ["inf", *WRONG_NUMBERS],
    "true or false": ["", "maybe", "2", "yes"],
    "single or multi": ["", "both", "Single"],
    "debug, info, warning or error": ["", "loud", "Info"],
    "a whole number 1…512": ["0", "513", "1.5", *WRONG_NUMBERS],
    "sqlite:///FILE or postgresql://USER@HOST:PORT/DATABASE": [
        "",
        "sharesrv.db",
        "sqlite:///",
        "postgresql:",
        "postgres://user:hush@host/db",
    ],
    "nats://HOST:PORT or tls://HOST:PORT, or empty": ["nats://", "127.0.0.1:4222", "http://hush@host"],
    "text": [],
}
WRONG_IN_TOML = ["[1]", "{a = 1}", "1979-05-27T07:32:00Z"]


def description(section: str, key: str) -> str:
    """What a setting must be, as its type says."""
    (meta,) = get_type_hints(SECTIONS[section], include_extras=True)[key].__metadata__
    return str(meta.description)


SETTINGS = [(section, key) for section, values in DEFAULTS.items() for key in values]
WRONG_TEXTS = [(*setting, text) for setting in SETTINGS for text in WRONG[description(*setting)]]


@pytest.mark.parametrize(("section", "key", "text"), WRONG_TEXTS)
def test_a_wrong_value_is_said_with_its_setting_what_it_must_be_and_where_it_was_given(
    section: str, key: str, text: str
) -> None:
    variable = f"SHARESRV_{section.upper()}__{key.upper()}"
    must = f"{section}.{key} must be {description(section, key)}"
    given = "" if section in ("auth", "database", "bus") else f", not {text!r}"
    for origin, environment, assignments in (
        (variable, {variable: text}, []),
        (f"--set {section}.{key}", {}, [f"{section}.{key}={text}"]),
    ):
        with pytest.raises(Trouble) as trouble:
            load(None, environment, assignments)
        assert str(trouble.value) == f"{origin}: {must}{given}"


@pytest.mark.parametrize(("section", "key"), SETTINGS)
@pytest.mark.parametrize("value", WRONG_IN_TOML)
def test_a_wrong_type_in_a_file_is_said_with_its_setting(file: Path, section: str, key: str, value: str) -> None:
    file.write_text(f"[{section}]\n{key} = {value}\n")
    with pytest.raises(Trouble) as trouble:
        load(file, {}, [])
    assert str(trouble.value).startswith(f"{file}: {section}.{key} must be {description(section, key)}")


@pytest.mark.parametrize("setting", ["server.host", "server.tls_cert", "limits.open_codes", "database.url", "bus.url"])
@pytest.mark.parametrize("value", ["a\udc8fb", "a\0b"], ids=["not UTF-8", "U+0000"])
def test_a_value_that_is_no_text_is_said_with_its_setting(setting: str, value: str) -> None:
    with pytest.raises(Trouble, match=f"^--set {setting}: {setting} must be text in UTF-8, without U\\+0000$"):
        load(None, {}, [f"{setting}={value}"])


def test_a_secret_is_not_repeated() -> None:
    for assignments in (["auth.admin_tokens=hush"], ["auths.admin_token=hush"]):
        name, _equals, value = assignments[0].partition("=")
        section, _dot, key = name.partition(".")
        for environment, given in (({f"SHARESRV_{section.upper()}__{key.upper()}": value}, []), ({}, assignments)):
            with pytest.raises(Trouble) as trouble:
                load(None, environment, given)
            assert "hush" not in str(trouble.value)


@pytest.mark.parametrize("assignment", ["auth.admin_token:hush", "hush", "admin_token=hush", "hush=="])
def test_a_secret_in_a_malformed_assignment_is_not_repeated(assignment: str) -> None:
    with pytest.raises(Trouble) as trouble:
        load(None, {}, ["server.ws_port=0", assignment])
    assert str(trouble.value) == "--set number 2: write section.key=value"


@pytest.mark.parametrize("section", DEFAULTS)
def test_an_unknown_setting_is_said_with_those_that_its_section_has(file: Path, section: str) -> None:
    said = f": there is no setting {section}.prot; {section} has {', '.join(SECTIONS[section].__struct_fields__)}"
    file.write_text(f"[{section}]\nprot = 1\n")
    variable = f"SHARESRV_{section.upper()}__PROT"
    for origin, given in (
        (str(file), (file, {}, [])),
        (variable, (None, {variable: "1"}, [])),
        (f"--set {section}.prot", (None, {}, [f"{section}.prot=1"])),
    ):
        with pytest.raises(Trouble) as trouble:
            load(*given)
        assert str(trouble.value) == origin + said


@pytest.mark.parametrize("path", ["servers.ws_port", ".", "Server.ws_port"])
def test_an_unknown_section_is_said_with_those_that_there_are(path: str) -> None:
    with pytest.raises(Trouble) as trouble:
        load(None, {}, [f"{path}=1"])
    section = path.partition(".")[0]
    assert str(trouble.value) == (
        f"--set {path}: there is no section {section!r}; there are "
        "server, database, bus, sessions, sharing, devices, limits, auth, retention, log"
    )


# Settings that must fit each other.


@pytest.mark.parametrize(("given", "missing"), [("tls_cert", "tls_key"), ("tls_key", "tls_cert")])
def test_a_certificate_and_its_key_come_together(given: str, missing: str) -> None:
    with pytest.raises(Trouble) as trouble:
        load(None, {}, [f"server.{given}=a.pem"])
    assert str(trouble.value) == f"--set server.{given}: server.{given} needs server.{missing}"
    assert load(None, {}, [f"server.{given}=a.pem", f"server.{missing}=a.pem"]).server.tls_cert == "a.pem"


def test_settings_know_where_they_were_given(file: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hush")
    file.write_text("[server]\ntls_cert = 'a.pem'\nhost = '::1'\n")
    environment = {"SHARESRV_SERVER__TLS_KEY": "a.pem"}
    assignments = ["server.host=::", f"auth.admin_token_file={tmp_path / 'token'}"]
    settings = load(file, environment, assignments)
    assert settings.origin("server.tls_cert") == str(file)
    assert settings.origin("server.tls_key") == "SHARESRV_SERVER__TLS_KEY"
    assert settings.origin("server.host") == "--set server.host"
    assert settings.origin("server.ws_port") == "default"


@pytest.mark.parametrize("setting", ["database.url=postgresql", "bus.url=nats"])
@pytest.mark.parametrize("password", ["hu/sh", "1/2", "hu#sh", "1#2", "1?2", "hu?sh", "[hush", "hu@sh"])
def test_a_password_that_must_be_escaped_is_said_without_it(setting: str, password: str) -> None:
    name = setting.partition("=")[0]
    with pytest.raises(Trouble) as trouble:
        load(None, {}, [f"{setting}://user:{password}@host:1/db"])
    said = f"--set {name}: {name} is not understood; in a password, write what is no letter or digit as %XX"
    assert str(trouble.value) == said


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////a@b/c?d", "sqlite:////a@b/c?d"),
        ("postgresql://user:hush@host:5432/db?password=hush", "postgresql://host:5432/db"),
        ("postgresql://a:b@[::1]/db", "postgresql://[::1]/db"),
        ("postgresql:///db", "postgresql:///db"),
        ("nats://hush@host:4222", "nats://host:4222"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, said: str) -> None:
    assert shown(url) == said


def test_two_ports_that_are_the_same() -> None:
    with pytest.raises(Trouble) as trouble:
        load(None, {}, ["server.http_port=8765"])
    assert str(trouble.value) == "server.ws_port and server.http_port are both 8765"
    assert load(None, {}, ["server.ws_port=0", "server.http_port=0"]).server.http_port == 0


# The operators' token from a file.


def test_the_operators_token_may_stand_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(" hush-hush\n")
    assert load(None, {}, [f"auth.admin_token_file={secret}"]).auth.admin_token == "hush-hush"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), (b" \n", "is empty"), (b"\xff", "is not UTF-8"), ("folder", "is a folder")],
)
def test_a_file_without_the_operators_token_is_named(tmp_path: Path, content: bytes | str | None, said: str) -> None:
    secret = tmp_path / "token"
    if isinstance(content, bytes):
        secret.write_bytes(content)
    elif content:
        secret.mkdir()
    with pytest.raises(Trouble, match=f"^auth.admin_token_file: {secret}: {said}"):
        load(None, {}, [f"auth.admin_token_file={secret}"])


def test_the_operators_token_and_a_file_of_it_are_too_much(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hush")
    with pytest.raises(Trouble, match=r"auth\.admin_token and auth\.admin_token_file are both set"):
        load(None, {"SHARESRV_AUTH__ADMIN_TOKEN": "hush"}, [f"auth.admin_token_file={tmp_path / 'token'}"])


@pytest.mark.parametrize("assignment", ["", "server", "server.ws_port", "ws_port=1", "=1"])
def test_a_malformed_assignment_is_answered_with_the_right_form(assignment: str) -> None:
    with pytest.raises(Trouble, match=r"write section\.key=value"):
        load(None, {}, [assignment])


@pytest.mark.parametrize(
    "text",
    [
        "[server]\nws_port = 70000\n",
        "[server]\nport = 1\n",
        "[servers]\nws_port = 1\n",
        "server = 1\n",
        "ws_port = 1\n",
        "[server\n",
        "[server]\nws_port = " + "[" * 2000 + "\n",
        "[server]\nws_port = " + "1" * 5000 + "\n",
        "[sharing]\nbridge_cascade = 'perhaps'\n",
    ],
)
def test_an_error_in_a_file_names_the_file(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(Trouble, match=r"sharesrv\.toml: "):
        load(file, {}, [])


def test_a_file_that_is_not_there_or_not_text_is_named(file: Path) -> None:
    with pytest.raises(Trouble, match=r"sharesrv\.toml: .*No such file"):
        load(file, {}, [])
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(Trouble, match=r"sharesrv\.toml: "):
        load(file, {}, [])
    with pytest.raises(Trouble, match=r": is a folder$"):
        load(file.parent, {}, [])


def test_a_wrong_value_is_not_hidden_by_a_right_one_above_it(file: Path) -> None:
    with pytest.raises(Trouble, match="SHARESRV_SERVER__WS_PORT"):
        load(None, {"SHARESRV_SERVER__WS_PORT": "web"}, ["server.ws_port=1"])


def test_every_setting_of_the_domain_reaches_it() -> None:
    assignments = [
        "sharing.confirm_timeout=1",
        "sharing.resend_cooldown=2",
        "sharing.bridge_cascade=false",
        "sessions.policy=multi",
        "limits.handshakes_per_minute=3",
        "limits.unknown_uids_per_minute=4",
        "limits.open_offers=5",
        "limits.offers_per_minute=6",
        "limits.open_codes=7",
        "limits.codes_per_minute=8",
        "limits.device_keys_per_minute=9",
        "sharing.invitation_seconds=8",
        "retention.ended_shares_days=1",
        "retention.journal_days=0.5",
        "retention.dead_tokens_days=2",
        "retention.answers_days=0",
    ]
    assert rules_of(load(None, {}, assignments)) == Rules(
        confirm_timeout_ms=1000,
        resend_cooldown_ms=2000,
        bridge_cascade=False,
        invitation_ms=8000,
        newest_token_only=False,
        handshakes_per_minute=3,
        unknown_uids_per_minute=4,
        open_offers=5,
        open_codes=7,
        codes_per_minute=8,
        device_keys_per_minute=9,
        offers_per_minute=6,
        ended_shares_kept_ms=86_400_000,
        journal_kept_ms=43_200_000,
        dead_tokens_kept_ms=172_800_000,
        answers_kept_ms=0,
    )


@pytest.mark.parametrize("name", ["SHARESRV_HOME", "SHARESRV_SERVER_WS_PORT", "SHARESRV_"])
def test_a_variable_with_our_prefix_needs_a_section(name: str) -> None:
    with pytest.raises(Trouble, match="two underscores"):
        load(None, {name: "1"}, [])
