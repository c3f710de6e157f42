"""Puts all that a database holds, as of one moment, through `domain.invariants`: in portions, each row in its place.

The rows of a share in the journal and the live shares of one sharee on one device's tree are held at once, and no others.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Final

import msgspec

from sharesrv.domain.invariants import (
    Step,
    faults_of_account,
    faults_of_device,
    faults_of_history,
    faults_of_params,
    faults_of_share,
    faults_of_token,
    faults_of_tree,
)
from sharesrv.domain.share import Cause, Channel, Origin, Share, State
from sharesrv.domain.source import Account, Device, Token
from sharesrv.store.chain import verify
from sharesrv.store.copying import TABLES, Side
from sharesrv.store.rows import SHARE, SHARE_COLUMNS, Row, share_of

_UNIQUE: Final = {"share": "code", "account": "uid_folded", "device WHERE pk IS NOT NULL": "pk, dk"}
_ACCOUNT: Final = ("id", "uid", "nickname", "token_serial", "uid_folded")
_TOKENS: Final = ("token t LEFT JOIN account a ON a.id = t.account_id", "t.digest")
_TOKEN: Final = (
    "t.digest",
    "t.account_id",
    "t.serial",
    "t.expires_ms",
    "a.id",
    "a.uid",
    "a.nickname",
    "a.token_serial",
)
_DEVICES: Final = (
    "device d LEFT JOIN device b ON b.id = d.bridge_id LEFT JOIN account a ON a.id = d.owner_id "
    "LEFT JOIN device_params p ON p.device_id = d.id",
    "d.id",
)
_DEVICE: Final = ("d.id", "d.owner_id", "d.bridge_id", "b.id", "b.owner_id", "b.bridge_id", "a.id", "p.params")
_LIVE: Final = (
    "share s LEFT JOIN device d ON d.id = s.device_id LEFT JOIN account a ON a.id = s.sharer_id "
    "LEFT JOIN account g ON g.id = s.sharee_id WHERE s.state < 4",
    "COALESCE(d.bridge_id, s.device_id), s.sharee_id, s.id",
)
_PLACED: Final = (SHARE, "d.id", "d.owner_id", "d.bridge_id", "a.id", "g.id")
_JOURNAL: Final = (
    *("share_id", "from_state", "to_state", "cause", "by", "channel"),
    *("device_id", "sharer_id", "sharee_id"),
)

CHAINED_MAX: Final = 100  # faults of the journal's hashes that are put into words


class Check:
    """A check under way: `faults` were found and said to `say`, a line each; `advance` hears how many rows were read."""

    def __init__(self, side: Side, say: Callable[[str], None], advance: Callable[[int], None]) -> None:
        self._side = side
        self._say = say
        self._advance = advance
        self.faults = 0
        self.counts: dict[str, int] = {}

    async def run(self, begin: Callable[[int], None]) -> None:
        """Check everything. `begin` is told how many rows will be read. Raises what the engine cannot read."""
        self._note("the database is damaged:", await self._side.damage())
        self.counts = {table: await self._side.count(table) for table in TABLES}
        begin(sum(self.counts.values()) + self.counts["share"] - self.counts["device_params"])
        await self._unique()
        await self._accounts()
        await self._devices()
        await self._shares()
        await self._trees()
        verified = await verify(self._side, most=CHAINED_MAX)
        self._note("journal:", verified.said)
        self.faults += verified.faults - len(verified.said)

    def _note(self, what: str, faults: Iterable[str]) -> None:
        for fault in faults:
            self.faults += 1
            self._say(f"{what} {fault}")

    async def _rows(self, table: str, columns: Sequence[str], order: str) -> AsyncIterator[Row]:
        async for chunk in self._side.read(table, columns, order):
            for row in chunk:
                yield row
            self._advance(len(chunk))

    async def _unique(self) -> None:
        """An engine keeps these unique as long as its indexes are whole."""
        for table, columns in _UNIQUE.items():
            groups = f"{table} GROUP BY {columns} HAVING count(*) > 1"
            async for first, last, number in self._rows(groups, ("min(id)", "max(id)", "count(*)"), "min(id)"):
                self._note(
                    f"{table.split()[0]} {first}", [f"has the same {columns} as {number - 1} more, {last} for one"]
                )

    async def _accounts(self) -> None:
        async for *columns, folded in self._rows("account", _ACCOUNT, "id"):
            account = Account(*columns)
            self._note(f"account {account.id}", faults_of_account(account, folded))
        async for row in self._rows(*_from(_TOKENS, _TOKEN)):
            account_of = Account(*row[4:]) if row[4] is not None else None
            self._note(f"token {row[0][:16]}", faults_of_token(Token(*row[:4]), account_of))

    async def _devices(self) -> None:
        async for id, owner, bridge_id, *bridge, account, params in self._rows(*_from(_DEVICES, _DEVICE)):
            above = None if bridge[0] is None else _device(*bridge)
            self._note(f"device {id}", faults_of_device(_device(id, owner, bridge_id), above, (account,)))
            if params is not None:
                self._note(f"device {id}", faults_of_params(params))
        orphans = "device_params p LEFT JOIN device d ON d.id = p.device_id WHERE d.id IS NULL"
        async for (id,) in self._rows(orphans, ("p.device_id",), "p.device_id"):
            self._note(f"device {id}", ["is missing, and its params are there"])

    async def _shares(self) -> None:
        """Each share beside its rows in the journal; both come in the order of the shares' ids."""
        whole = all([not trimmed async for (trimmed,) in self._rows("chain", ("trimmed",), "id")])
        async with aclosing(self._histories()) as histories:
            id, steps = await anext(histories)
            async for row in self._rows("share", SHARE_COLUMNS, "id"):
                while id < row[0]:
                    self._note(f"share {id}", faults_of_history(None, steps, whole=whole))
                    id, steps = await anext(histories)
                if (share := self._share(row)) is not None:
                    history = steps if id == share.id else ()
                    self._note(f"share {share.id}", faults_of_share(share))
                    self._note(f"share {share.id}", faults_of_history(share, history, whole=whole))
                if id == row[0]:
                    id, steps = await anext(histories)
            while id < _BEYOND:
                self._note(f"share {id}", faults_of_history(None, steps, whole=whole))
                id, steps = await anext(histories)

    async def _histories(self) -> AsyncGenerator[tuple[int, list[Step]], None]:
        """The rows of the journal by their shares; after the last one there is nothing, of a share beyond all."""
        id, steps = _BEYOND, list[Step]()
        async for share_id, before, after, cause, by, channel, *rest in self._rows("journal", _JOURNAL, "share_id, id"):
            if share_id != id and id != _BEYOND:
                yield id, steps
                steps = []
            id = share_id
            try:
                state = None if before is None else State(before)
                steps.append(Step(state, State(after), Cause(cause), by, Channel(channel), *rest))
            except ValueError as error:
                self._note(f"share {id}", [f"has a row in the journal that cannot be read: {error}"])
        if id != _BEYOND:
            yield id, steps
        yield _BEYOND, []

    async def _trees(self) -> None:
        place: tuple[str, str | None] | None = None
        tree: list[Share] = []
        devices: dict[str, Device] = {}
        accounts: set[str] = set()
        async for row in self._rows(*_from(_LIVE, _PLACED)):
            share = self._share(row[: len(SHARE_COLUMNS)], quietly=True)
            if share is None:
                continue
            device_id, owner_id, bridge_id, *account_ids = row[len(SHARE_COLUMNS) :]
            now = (bridge_id or share.device_id, share.sharee_id)
            if now != place:
                self._tree(tree, devices, accounts)
                place, tree, devices, accounts = now, [], {}, set()
            tree.append(share)
            accounts.update(id for id in account_ids if id is not None)
            if device_id is not None:
                devices[device_id] = _device(device_id, owner_id, bridge_id)
        self._tree(tree, devices, accounts)

    def _tree(self, tree: list[Share], devices: dict[str, Device], accounts: set[str]) -> None:
        for id, fault in faults_of_tree(tree, devices, accounts):
            self._note(f"share {id}", [fault])

    def _share(self, row: Row, *, quietly: bool = False) -> Share | None:
        """The share of a row, None where it cannot be read."""
        try:
            kinds = zip(_KINDS, (row[place] for place in _PLACES), strict=True)
            if all(value in kind._value2member_map_ for kind, value in kinds):
                return share_of(row)
            fault = "has an origin, a state or a cause that there is not"
        except msgspec.DecodeError as error:
            fault = f"cannot be read: {error}"
        if not quietly:
            self._note(f"share {row[0]}", [fault])
        return None


_BEYOND: Final = 2**63  # no share has this id
_KINDS: Final = (Origin, State, Cause)
_PLACES: Final = tuple(SHARE_COLUMNS.index(name) for name in ("origin", "state", "cause"))


def _from(table: tuple[str, str], columns: Sequence[str]) -> tuple[str, Sequence[str], str]:
    return table[0], columns, table[1]


def _device(id: str, owner_id: str, bridge_id: str | None) -> Device:
    return Device(id, owner_id, "", bridge_id, verified=True, shareable=True)
