"""A quiet time: nothing goes wrong any more, everybody connects anew, and everybody must have heard what is theirs."""

from __future__ import annotations

from sharesrv.auth import digest
from sharesrv.domain.share import Origin, State
from sharesrv.store.postgres.lists import LATE_MS
from sharesrv.store.rows import SHARE, share_of
from tests.simulation.calls import mint
from tests.simulation.clients import AppLink
from tests.simulation.invariants import outcome
from tests.simulation.mirror import Broken
from tests.simulation.network import frame
from tests.simulation.simulation import Simulation

SOON_MS = 100
LATE_S = 40.0  # the alarm sleeps for 30 s at most, and a device's late answer is waited for 10 s


def quiet(simulation: Simulation) -> None:
    """Let things settle, and check that nothing is owed to anybody. Raises Broken."""
    simulation.is_calm = True
    simulation.disk.faults.clear()
    for process in simulation.processes:
        if process.callbacks_left is not None and not process.is_dead:
            process.callbacks_left = None
    for account in simulation.accounts.values():
        for link in account.links:
            link.wire.unstall()
    if (cluster := simulation.cluster) is not None:
        cluster.directory.failures = 0
        cluster.join()
    if (
        simulation.nodes == 1
        or simulation.draws.random() < 0.5
        or not any(process.is_ready for process in simulation.processes)
    ):
        simulation.start()  # or those that live do all that there is to do
    simulation.advance(LATE_S)
    _check_links(simulation)
    links = [_connect(simulation, id) for id in simulation.accounts]
    simulation.advance(1.0)
    pinged_ms = simulation.clock.now_ms()
    for link in links:
        if not link.is_online:
            raise Broken(f"{link.account.id} cannot connect")
        link.wire.send(frame(b"ping"))
    simulation.advance(1.0)
    _check_links(simulation)
    _check_rows(simulation)
    _check_heard(simulation, {link.account.id: link for link in links}, pinged_ms)
    simulation.is_calm = False


def _connect(simulation: Simulation, account_id: str) -> AppLink:
    account = simulation.accounts[account_id]
    for link in account.links:
        link.wire.reset()
    simulation.advance(0.1)
    mint(simulation, account)
    simulation.advance(0.1)
    account.links = [AppLink(simulation, account, account.tokens[-1], glued=False)]
    return account.links[0]


def _check_links(simulation: Simulation) -> None:
    """Whoever stayed connected was told all that it was to be told, and was answered."""
    for account in simulation.accounts.values():
        standing = [link for link in account.links if link.wire.stands and link.session]
        if lost := [link.token for link in standing if digest(link.token) not in simulation.mirror.token_serials]:
            raise Broken(f"{account.id} is still connected by tokens that were revoked: {lost}")
        if len(standing) > 1:
            raise Broken(f"{account.id} has {len(standing)} sessions")
        for link in account.links:
            if not link.attached:
                continue
            if simulation.nodes == 1:
                _check_presence(simulation, link)
            expected = [key for key in link.expected if simulation.nodes == 1 or _stands(simulation, account.id, *key)]
            if expected:
                raise Broken(f"{account.id} was not told {', '.join(map(' '.join, expected))}")
            for sequence, ask in link.asks.items():
                settled = ask.kind == "share" and (
                    link.settled[f"{ask.device_id} {sequence}"]
                    or _waits(simulation, account.id, ask.device_id, sequence)
                )
                if not ask.answers and not settled:
                    raise Broken(f"{account.id} was not answered: {sequence} {ask}")


def _check_presence(simulation: Simulation, link: AppLink) -> None:
    """What it was told last of a device to which it has access is so; that a device was deleted its owner is not told."""
    for device_id, told in link.presence.items():
        device = simulation.mirror.devices.get(device_id)
        if (
            device is None
            or device_id in simulation.mirror.removed
            or not simulation.mirror.holds(link.account.id, device_id, simulation.clock.now_ms())
        ):
            continue
        online = simulation.processes[0].live.devices.link(device_id, device.bridge_id) is not None
        if told is not online:
            raise Broken(f"{link.account.id} was told that {device_id} is {'on' if told else 'off'}line, and it is not")


def _stands(simulation: Simulation, account_id: str, kind: str, about: str) -> bool:
    """Whether this is worth to be told yet, among several nodes.

    What was asked and withdrawn during a gap in the bus nobody is told; an answer is told to the session that asked, which
    may be superseded on another node already, and received there.
    """
    if kind == "settled":
        return f"{account_id} {about}" not in simulation.received
    mirror = simulation.mirror
    return kind != "share" or mirror.shares[mirror.codes[about]].state is State.OPEN


def _waits(simulation: Simulation, account_id: str, device_id: str, sequence: str) -> bool:
    mirror = simulation.mirror
    ids = mirror.requests.get((account_id, device_id, sequence), ())
    return any(outcome(mirror.shares[id]) is None for id in ids)


def _check_rows(simulation: Simulation) -> None:
    """Nothing that was committed is missing or changed, and nothing is overdue.

    What a dead node has written is another's when it is overdue by LATE_MS, and each looks as often.
    """
    mirror, now_ms = simulation.mirror, simulation.clock.now_ms()
    patience_ms = 0 if simulation.nodes == 1 else 2 * LATE_MS
    rows = {row[0]: share_of(row) for row in simulation.disk.database.execute(f"SELECT {SHARE} FROM share s")}
    if rows.keys() != mirror.shares.keys():
        raise Broken(f"shares that were committed are missing: {mirror.shares.keys() - rows.keys()}")
    for id, share in rows.items():
        if share.state is not mirror.shares[id].state or share.sharee_id != mirror.shares[id].sharee_id:
            raise Broken(f"share {id} is not what was committed: {share}, {mirror.shares[id]}")
        if share.due(now_ms - patience_ms) and share.state < State.MERGED:
            raise Broken(f"share {id} has been overdue since {share.next_ms()}, it is {now_ms}: {share}")


def _check_heard(simulation: Simulation, links: dict[str, AppLink], pinged_ms: int) -> None:
    """Who is asked has heard of it on this connection; who asked has heard the answer at some time.

    What was told well before the pings has been received.
    """
    told = simulation.heard | simulation.received
    for share in simulation.mirror.shares.values():
        sharee = links.get(share.sharee_id or "")
        if share.state is State.OPEN and sharee is not None and share.code not in sharee.offered:
            raise Broken(f"{share.sharee_id} was not asked again: {share}")
        is_owed = share.origin is Origin.OFFER and outcome(share) is not None and share.sharer_id in links
        key = f"{share.sharer_id} {share.device_id} {share.sequence}"
        if is_owed and key not in told:
            raise Broken(f"{share.sharer_id} never heard of the answer to its request: {share}")
    for row in simulation.disk.database.execute(f"SELECT {SHARE} FROM share s WHERE told = 0 AND state >= 2"):
        share = share_of(row)
        if share.sharer_id in links and share.settled_ms < pinged_ms - SOON_MS:
            raise Broken(f"the answer was told and received, and is not marked so: {share}")
