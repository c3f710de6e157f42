"""The stores of a suite. Nothing is measured meanwhile, so both cores fill them: one the largest, the other the rest."""

from __future__ import annotations

from collections.abc import Collection

from sharesrv.bench import offers, stage
from sharesrv.bench.fleet import stock
from sharesrv.bench.rack import BASE, OFFERS, STORED, Sizes
from sharesrv.bench.stage import Import
from sharesrv.bench.stores import Stores
from sharesrv.bench.trials import Say


async def fill(stores: Stores, sizes: Sizes, wanted: Collection[str], say: Say) -> None:
    """The base store, and of the others those that are wanted. Raises Trouble, Wrong."""
    say("filling the base store")
    fleets = (sizes.many_fleet(), sizes.few_fleet(), sizes.offers_fleet())
    stores.filled(BASE, (line for fleet in fleets for line in fleet.lines()))
    importing = _begin_stored(stores, sizes) if STORED in wanted else None
    try:
        if OFFERS in wanted:
            say(f"opening {offers.count_of(fleets[2]):,} offers")
            with stage.server(stores.copy(stores.path(BASE), OFFERS)) as target:
                await offers.open_offers(target, fleets[2])
        if importing is not None:
            say(f"importing {sizes.stored:,} shares")
            importing.wait()
    finally:
        if importing is not None:
            importing.abandon()


def _begin_stored(stores: Stores, sizes: Sizes) -> Import:
    stored = stores.copy(stores.path(BASE), STORED)
    return Import(stored, stores.written(STORED, stock("stock", sizes.stored)), stage.cores()[0])
