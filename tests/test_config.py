"""Settings: what counts where several speak, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sharesrv.cli.options import rules_of
from sharesrv.config import Settings, load
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
    },
    "database": {"url": "sqlite:///sharesrv.db"},
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
        "unsent_bytes": 1048576,
        "connections": 15000,
        "connections_per_second": 2000,
    },
    "auth": {
        "token_days": 30.0,
        "admin_token": "",
        "jwt_jwks": "",
        "jwt_issuer": "",
        "jwt_audience": "",
        "jwt_claim": "sub",
    },
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sharesrv.toml"


def test_nothing_said_gives_the_defaults_of_the_contract() -> None:
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


def test_each_key_is_taken_from_where_it_was_said(file: Path) -> None:
    file.write_text("[server]\nhost = '::1'\nws_port = 1\n[sharing]\nconfirm_timeout = 2\nbridge_cascade = false\n")
    settings = load(
        file, {"SHARESRV_SERVER__WS_PORT": "2", "SHARESRV_SESSIONS__POLICY": "multi"}, ["auth.token_days=1"]
    )
    assert (settings.server.host, settings.server.ws_port) == ("::1", 2)
    assert (settings.sharing.confirm_timeout, settings.sharing.bridge_cascade) == (2.0, False)
    assert (settings.sessions.policy, settings.auth.token_days) == ("multi", 1.0)


def test_of_two_assignments_the_later_counts() -> None:
    assert load(None, {}, ["server.ws_port=1", "server.ws_port=2"]).server.ws_port == 2


def test_the_rest_of_the_environment_is_left_alone() -> None:
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


@pytest.mark.parametrize(
    "assignment",
    [
        "server.ws_port=70000",
        "server.ws_port=-1",
        "server.ws_port=web",
        "server.ws_port=",
        "sessions.policy=both",
        "sessions.heartbeat=0",
        "sessions.heartbeat=1.5",
        "sharing.confirm_timeout=0",
        "sharing.confirm_timeout=-1",
        "sharing.confirm_timeout=nan",
        "sharing.confirm_timeout=inf",
        "sharing.confirm_timeout=1e300",
        "sharing.resend_cooldown=-1",
        "sharing.resend_cooldown=inf",
        "sharing.bridge_cascade=maybe",
        "limits.open_offers=-1",
        "limits.open_offers=many",
        "auth.token_days=0",
        "auth.token_days=inf",
        "auth.token_days=1e300",
        "server.port=1",
        "servers.ws_port=1",
        ".=",
    ],
)
def test_a_wrong_value_or_name_is_said_with_its_place(file: Path, assignment: str) -> None:
    path, _equals, value = assignment.partition("=")
    section, _dot, key = path.partition(".")
    with pytest.raises(Trouble) as trouble:
        load(None, {}, [assignment])
    assert f"--set {assignment}" in str(trouble.value)
    name = f"SHARESRV_{section.upper()}__{key.upper()}"
    with pytest.raises(Trouble) as trouble:
        load(None, {name: value}, [])
    assert name in str(trouble.value)


@pytest.mark.parametrize("assignment", ["", "server", "server.ws_port", "ws_port=1", "=1"])
def test_what_is_no_assignment_is_told_how_to_write_one(assignment: str) -> None:
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
        "[sharing]\nbridge_cascade = 'perhaps'\n",
    ],
)
def test_a_wrong_file_is_named(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(Trouble, match=r"sharesrv\.toml: "):
        load(file, {}, [])


def test_a_file_that_is_not_there_or_not_text_is_named(file: Path) -> None:
    with pytest.raises(Trouble, match=r"sharesrv\.toml: .*No such file"):
        load(file, {}, [])
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(Trouble, match=r"sharesrv\.toml: "):
        load(file, {}, [])


def test_a_wrong_value_is_not_hidden_by_a_right_one_above_it(file: Path) -> None:
    with pytest.raises(Trouble, match="SHARESRV_SERVER__WS_PORT"):
        load(None, {"SHARESRV_SERVER__WS_PORT": "web"}, ["server.ws_port=1"])


def test_every_setting_that_the_domain_goes_by_reaches_it() -> None:
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
        "sharing.invitation_seconds=8",
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
        offers_per_minute=6,
    )


@pytest.mark.parametrize("name", ["SHARESRV_HOME", "SHARESRV_SERVER_WS_PORT", "SHARESRV_"])
def test_a_variable_of_ours_without_a_section_is_refused(name: str) -> None:
    with pytest.raises(Trouble, match="two underscores"):
        load(None, {name: "1"}, [])
