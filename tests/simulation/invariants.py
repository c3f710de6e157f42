"""What the server may say: each frame and each HTTP answer is judged as it is written, by what is on disk then."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from sharesrv.auth import digest
from sharesrv.domain.share import Share, State
from tests.simulation.clients import AppLink, Ask, Control, DeviceLink
from tests.simulation.mirror import COOLDOWN_MS, Broken
from tests.simulation.network import OPEN, PONG, Frame, Wire

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.simulation import Simulation

LEARNS_S: Final = 30.0  # in which a node learns what it was not told: it looks every 10 s, and fails at times
LATE_MS: Final = 15_000  # that a push of another node may come late
_RESULTS: Final = {
    State.ACTIVE: 2,
    State.ENDED: 2,
    State.MERGED: 2,
    State.REFUSED: 3,
    State.WITHDRAWN: 3,
    State.TIMED_OUT: 504,
}


def outcome(share: Share) -> int | None:
    """What its sharer is told: 2, 3, 504; None while it waits."""
    return _RESULTS.get(share.state)


class Judge:
    """Judges what one simulation's servers say. Raises Broken."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._taken: dict[str, str] = {}  # who has accepted a share code

    def spoken(self, wire: Wire, said: Frame) -> None:
        """A frame that is being written."""
        link = wire.client
        if isinstance(link, DeviceLink):
            if said.get("action") == "update":
                self._forwarded(wire.process, said)
            return
        assert isinstance(link, AppLink)
        if said is OPEN or said is PONG or "close" in said:
            return
        if said.get("error") != 406 and self._is_over(link):
            raise Broken(f"a superseded session of {link.account.id} was written {said}")
        if "config" in said:
            self._greeted(link, said)
        elif "error" in said:
            self._answered(link, said)
        else:
            self._pushed(link, said)

    def _greeted(self, link: AppLink, said: Frame) -> None:
        """Nobody is let in without the newest token, which has not expired; older sessions are superseded."""
        decided = link.wire.process.decided
        account, serial, expires_ms = decided.tokens.get(digest(link.token), ("", 0, 0))
        good = account == link.account.id and (expires_ms == 0 or decided.at_ms < expires_ms)
        if not good or serial < decided.accounts[account].token_serial:
            raise Broken(f"{link.account.id} was let in by the token {link.token}")
        link.session = int(said["socketid"])
        for older in link.account.links:
            if older is link or not 0 < older.session < link.session:
                continue
            if older.wire.process is link.wire.process:
                older.learns_s = -1.0
            elif not older.superseded:
                older.learns_s = self._simulation.time.now_s + LEARNS_S
            older.superseded = True

    def _is_over(self, link: AppLink) -> bool:
        """Whether a session is superseded, and its node must know.

        Where nobody has told it of a session on another node, it finds that while that session lasts.
        """
        lasts = link.learns_s < 0 or any(
            each.session > link.session and each.wire.stands for each in link.account.links
        )
        return link.superseded and lasts and self._simulation.time.now_s > link.learns_s

    # Answers.

    def _answered(self, link: AppLink, said: Frame) -> None:
        error, sequence = said["error"], said.get("sequence", "")
        ask = link.asks.get(sequence)
        key = f"{said.get('deviceid')} {sequence}"
        is_request = ask is None or ask.kind == "share"
        if is_request and (error == 504 or (error == 0 and said.get("result") in (2, 3))):
            self._settled(link, said, key, 0 if ask is None else ask.times)
            return
        if ask is None:
            if said.get("actionName") not in ("userOnline", None):
                raise Broken(f"{link.account.id} was answered what it did not ask: {said}")
            return
        ask.answers += 1
        if ask.answers > ask.times:
            raise Broken(f"{link.account.id} was answered twice: {said}")
        if error == 500 and self._simulation.disk.failed == ask.failed:
            raise Broken(f"{ask.kind} of {link.account.id} failed with a sound disk: {said}")
        self._judge(link, ask, said)

    def _settled(self, link: AppLink, said: Frame, key: str, times: int) -> None:
        """The answer to a request is the one on disk; it comes once to a connection, and as often as it was asked there."""
        told = 504 if said["error"] == 504 else said["result"]
        mirror = self._simulation.mirror
        ids = mirror.requests.get((link.account.id, said["deviceid"], said["sequence"]), ())
        ends = [outcome(mirror.shares[id]) for id in ids]
        if told not in ends:
            raise Broken(f"{link.account.id} was told {told} about {key}, on disk is {ends}")
        link.settled[key] += 1
        if link.settled[key] > len(ids) + times:
            raise Broken(f"{link.account.id} was told too often on one connection: {said}")
        link.unreceived.append(f"{link.account.id} {key}")
        link.expected.pop(("settled", key), None)

    def _judge(self, link: AppLink, ask: Ask, said: Frame) -> None:
        simulation, account_id = self._simulation, link.account.id
        match ask.kind, said["error"]:
            case "share", 403 if "retryAfter" in said:
                self._too_soon(link.wire.process, ask, said)
            case "answer", 0:
                share = simulation.mirror.shares[simulation.mirror.codes[said["s_seq"]]]
                if share.sharee_id != account_id or outcome(share) != said["result"]:
                    raise Broken(f"{account_id} was acknowledged {said}, on disk is {share.state.word}")
            case "query", 0:
                what = f"{account_id} was answered a query of {ask.device_id}"
                self._allowed(link.wire.process, account_id, ask.device_id, what, late=True)
            case "update", 0:
                was_removed = simulation.mirror.removed.get(ask.device_id, -1) > ask.batch  # what it had stored, too
                if not was_removed and not simulation.stored(ask.device_id, ask.marker):
                    raise Broken(f"the update {ask.marker} of {ask.device_id} was acknowledged and is not on disk")
                if simulation.nodes == 1:  # on another node they may have been told before
                    self._expect_update(link, ask)
            case "update", 504 if simulation.nodes > 1:
                pass  # nobody knows whether it has reached a node that is gone
            case "update", 504 | 0 if not simulation.controls[ask.marker].forwards:
                raise Broken(f"the update {ask.marker} was answered {said} and never reached {ask.device_id}")

    def _too_soon(self, process: Process, ask: Ask, said: Frame) -> None:
        """403 with `retryAfter`: there is a reason, and it is for so long."""
        mirror, now_ms = self._simulation.mirror, process.decided.at_ms
        times = [mirror.timed_out_ms.get((ask.device_id, ask.sharee_id), 0) + COOLDOWN_MS]
        times += mirror.deadlines[ask.device_id, ask.sharee_id][-8:]
        if said["retryAfter"] not in {-(-(time_ms - now_ms) // 1000) for time_ms in times if time_ms > now_ms}:
            raise Broken(f"a share of {ask.device_id} to {ask.sharee_id} was refused at {now_ms} with {said}: {times}")

    def _expect_update(self, sender: AppLink, ask: Ask) -> None:
        """Everybody else who has the device is to be told; who has got or lost it in this very batch may be."""
        simulation = self._simulation
        mirror = simulation.mirror
        for account in simulation.accounts.values():
            is_sure = mirror.held_in.get((account.id, ask.device_id)) != mirror.batch
            if is_sure and mirror.holds(account.id, ask.device_id, sender.wire.process.decided.at_ms):
                for link in account.links:
                    if link is not sender and link.attached:
                        link.expected["update", str(ask.marker)] = link.wire.process

    # Pushes.

    def _pushed(self, link: AppLink, said: Frame) -> None:
        account_id, device_id, simulation = link.account.id, said["deviceid"], self._simulation
        match said["action"]:
            case "share":
                share = simulation.mirror.shares.get(simulation.mirror.codes.get(said["s_seq"], 0))
                if share is None or share.sharee_id != account_id:
                    raise Broken(f"{account_id} was asked what is not on disk: {said}")
                link.expected.pop(("share", said["s_seq"]), None)
            case "cancelShare":
                link.expected.pop(("cancelShare", device_id), None)
                link.presence.pop(device_id, None)  # of what comes later it need not be told
            case "update" | "sysmsg" as action:
                if not link.wire.was_stalled:
                    what = f"{account_id} was pushed {action} of {device_id}"
                    process = link.wire.process
                    self._allowed(process, account_id, device_id, what, late=action == "sysmsg" or process.is_hearing)
                if action == "sysmsg":
                    link.presence[device_id] = said["params"]["online"]
                else:
                    link.expected.pop(("update", str(said["params"].get("m"))), None)

    def _allowed(self, process: Process, account_id: str, device_id: str, what: str, *, late: bool = False) -> None:
        """What is told has been decided on what is on disk; `late` where nodes are asked or told between.

        Pushes carry no version: one that is late on the bus may come behind the `cancelShare` that ends them.
        """
        simulation, decided = self._simulation, process.decided
        batch, at_ms = decided.batch, decided.at_ms
        if late and simulation.nodes > 1:
            batch = min(batch, bisect_left(simulation.batches_ms, at_ms - LATE_MS))
        mirror = simulation.mirror
        if not (
            mirror.held_since(account_id, device_id, batch, at_ms)
            or (late and simulation.nodes > 1 and mirror.holds(account_id, device_id, at_ms - LATE_MS))
        ):
            raise Broken(f"{what}, to which it had no access at {at_ms}")

    def _forwarded(self, process: Process, said: Frame) -> None:
        """A command goes to a device once, and from an account that has access to it."""
        control = self._simulation.controls[said["params"]["m"]]
        control.forwards += 1
        if control.forwards > 1 or control.device_id != said["deviceid"]:
            raise Broken(f"{control} was sent to {said['deviceid']}")
        what = f"{control.account_id} controlled {control.device_id}"
        self._allowed(process, control.account_id, control.device_id, what)
        self._timers(process, control, said["params"])

    def _timers(self, process: Process, control: Control, params: Frame) -> None:
        """Without any timer bit, timers stay as they are stored."""
        mirror, pair = self._simulation.mirror, (control.account_id, control.device_id)
        is_unsure = mirror.held_in.get(pair, -1) >= process.decided.batch
        if "timers" not in params or is_unsure or mirror.permit(*pair, process.decided.at_ms):
            return
        if params["timers"] != self._simulation.params(control.device_id).get("timers"):
            raise Broken(f"{control.account_id} changed the timers of {control.device_id} without permission")

    # HTTP.

    def http(self, call: str, account_id: str, code: str, status: int, body: Any) -> None:
        """An answer of device sharing; `code` is the share code that was shown."""
        mirror = self._simulation.mirror
        if status >= 500:
            raise Broken(f"{call} of {account_id} was answered {status}: {body}")
        if not isinstance(body, dict) or body.get("code") != 200:
            return
        if call in ("shareInfo", "shareByUid") and mirror.codes.get(body["data"]) is None:
            raise Broken(f"{account_id} was given the share code {body['data']}, which is not on disk")
        if call == "shareDevice":
            share = mirror.shares[mirror.codes[code]]
            if self._taken.setdefault(code, account_id) != account_id:
                raise Broken(f"the share code {code} was accepted by {self._taken[code]} and by {account_id}")
            if share.sharee_id != account_id or not share.accepted_ms:
                raise Broken(f"{account_id} was told to have accepted {code}, on disk is {share}")
