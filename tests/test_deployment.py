"""What stands in scripts/deploy fits the program: its options, settings and metrics. `tests.deployment` asks the tools."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sharesrv import metrics
from sharesrv.cli import app_for
from sharesrv.config import load
from tests.deployment import COMPOSE, FOLDER

SAMPLES = {sample.name for family in metrics.REGISTRY.collect() for sample in family.samples}
NAMES = {family.name for family in metrics.REGISTRY.collect()} | SAMPLES


def compose() -> dict[str, Any]:
    found = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("file", ["alerts.yaml", "dashboard.json"])
def test_every_metric_that_is_asked_for_is_there(file: str) -> None:
    asked = set(re.findall(r"\bsharesrv_\w+", (FOLDER / file).read_text()))
    assert asked
    assert {name for name in asked if re.sub(r"_(bucket|total)$", "", name) not in NAMES} == set()


def test_the_dashboard_shows_each_metric_once_and_no_panel_covers_another() -> None:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    places = [(each["gridPos"]["x"], each["gridPos"]["y"]) for each in panels]
    assert len(set(places)) == len(panels) == len({each["id"] for each in panels})
    assert all(target["expr"] for each in panels for target in each["targets"])


def test_the_services_program_takes_its_options() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(FOLDER / "sharesrv.service")
    _program, verb, *options = shlex.split(unit["Service"]["ExecStart"])
    said = CliRunner().invoke(app_for([verb]), [verb, "--help"], env={"COLUMNS": "200"}).output
    assert all(option in said for option in options if option.startswith("--"))
    assert unit["Service"]["Type"] == "notify"
    assert int(unit["Service"]["TimeoutStopSec"]) > 30  # goodbyes, and answers that were begun


def test_the_nodes_settings_are_settings() -> None:
    services = compose()["services"]
    nodes = [service for name, service in services.items() if name.startswith("node-")]
    assert len(nodes) == 3
    for node in nodes:
        environment = {name: re.sub(r"\$\{(\w+).*?\}", lambda found: COMPOSE[found[1]], value)
                       for name, value in node["environment"].items()}  # fmt: skip
        settings = load(None, environment, [])
        assert settings.bus.url
        assert settings.auth.admin_token
        grace_s = int(node["stop_grace_period"].removesuffix("s"))
        assert grace_s > settings.server.drain_seconds + 30


def test_the_proxy_reaches_every_node_on_its_ports() -> None:
    services = compose()["services"]
    settings = load(None, {}, [])
    caddy = services["caddy"]["environment"]
    nodes = [name for name in services if name.startswith("node-")]
    assert caddy["SHARESRV_NODES_WS"].split() == [f"{name}:{settings.server.ws_port}" for name in nodes]
    assert caddy["SHARESRV_NODES_HTTP"].split() == [f"{name}:{settings.server.http_port}" for name in nodes]
    asked = set(re.findall(r"\{\$(\w+)", (FOLDER / "Caddyfile").read_text()))
    assert set(caddy) <= asked


def test_the_image_has_what_the_package_needs() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)
    top = FOLDER.parent.parent
    assert all((top / name).exists() for line in copied for name in line.split())
