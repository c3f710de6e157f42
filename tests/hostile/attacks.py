"""Every attack, by its name."""

from __future__ import annotations

from typing import Final

from tests.hostile import floods
from tests.hostile.attacker import Attack

ATTACKS: Final[dict[str, Attack]] = {each.name: each for each in floods.ATTACKS}
