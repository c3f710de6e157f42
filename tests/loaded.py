"""Loads every verb and builds the HTTP handlers once: what a start takes longest for. See `tests.forked`."""

from __future__ import annotations

from typing import cast

import pytest  # noqa: F401  each process imports the main module again, which is pytest's

import tests.forked  # noqa: F401
from sharesrv.cli import app_for
from sharesrv.cli import node as _  # noqa: F401
from sharesrv.faces.http.backend import Backend
from sharesrv.faces.http.server import application

app_for([])
application(cast("Backend", None))  # a second one takes a third of the time
