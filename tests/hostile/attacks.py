"""Every attack, by its name."""

from __future__ import annotations

from typing import Final

from tests.hostile import floods, guesses, odd, sockets, web
from tests.hostile.attacker import Attack

ATTACKS: Final[dict[str, Attack]] = {
    each.name: each for module in (sockets, floods, odd, guesses, web) for each in module.ATTACKS
}
