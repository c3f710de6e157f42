// What client.js does against a server, which tests/wire.py has filled. Ends with exit code 0 where all of it holds.
import assert from "node:assert/strict";
import { AppClient, ConnectionLost, DeviceClient, HandshakeRefused, OutcomeUnknown } from "sharesrv-client";

const url = process.argv[2];
const UID = "guest@example.org";
const HOW = { deviceName: "Lamp", userName: "Owner" };
const next = (client, type) =>
  new Promise((done) => client.addEventListener(type, ({ detail }) => done(detail), { once: true }));
const frames = [];

const owner = new AppClient(url, "owner", "at-owner", { onframe: (direction, text) => frames.push(direction + text) });
await assert.rejects(owner.query("lamp"), ConnectionLost);
await owner.connect();
const guest = new AppClient(url, "guest", "at-guest", { reconnect: true });
await guest.connect();
assert(frames[0].startsWith('→{"action":"userOnline","at":"at-owner"'));
assert(frames[1].startsWith("←{"));
assert.equal(frames.length, 2); // no ping

// Shared, refused and accepted.
let offered = next(guest, "offer");
let answer = owner.share("lamp", UID, { ...HOW, note: "hi", permit: 1 });
let offer = await offered;
assert.deepEqual([offer.sharer, offer.deviceid, offer.params.note, offer.params.permit], ["owner", "lamp", "hi", 1]);
assert.equal((await offer.refuse()).result, 3);
assert.equal((await answer).result, 3);
offered = next(guest, "offer");
answer = owner.share("lamp", UID, HOW);
offer = await offered;

// The guest's connection breaks: it comes back, is told of the same offer once, and finds its answer.
guest.addEventListener("offer", () => assert.fail("this offer was told already"), { once: true });
guest._socket.close(4000);
assert.equal(await next(guest, "offline"), null);
assert.equal((await offer.accept()).result, 2);
assert.equal((await answer).result, 2);

// Control, by the lamp's yes and no.
const commands = [];
const lamp = new DeviceClient(
  url,
  "lamp",
  "key-lamp",
  (deviceid, params) => (commands.push([deviceid, params]), params.error),
);
const appeared = next(owner, "sysmsg");
await lamp.connect();
assert.equal((await appeared).params.online, true);
let updated = next(owner, "update");
assert.equal((await guest.update("lamp", { switch: "on" }, { owner: "owner" })).error, 0);
assert.deepEqual((await updated).params, { switch: "on" });
assert.equal((await guest.update("lamp", { error: 418 })).error, 418);
assert.deepEqual(commands, [
  ["lamp", { switch: "on" }],
  ["lamp", { error: 418 }],
]);
updated = next(guest, "update");
assert.equal((await lamp.report({ switch: "off" })).error, 0);
assert.deepEqual((await updated).params, { switch: "off" });
assert.deepEqual(await guest.query("lamp", ["switch"]), { switch: "off" });

// The grant is changed and ended.
assert.equal((await guest.update("lamp", { timers: [{ mId: "1" }] })).error, 403);
const changed = next(guest, "updateShare");
assert.equal((await owner.updateShare("lamp", UID, { permit: 1 })).result, 2);
assert.equal((await changed).params.permit, 1);
assert.equal((await guest.update("lamp", { timers: [{ mId: "1" }] })).error, 0);
const ended = next(guest, "cancelShare");
assert.equal((await owner.cancelShare("lamp", UID, HOW)).error, 0);
assert.equal((await ended).params.reason, "cancelled");
await assert.rejects(guest.query("lamp"), /^CommandRefused: 403/);

// An update whose answer is lost is not sent again.
const silent = new DeviceClient(url, "bridge", "key-bridge", () => new Promise(() => {}));
await silent.connect();
const unknown = owner.update("bridge", { switch: "on" });
await owner.ping();
const over = next(owner, "offline");
owner._socket.close(4000);
await assert.rejects(unknown, OutcomeUnknown);
assert((await over) instanceof ConnectionLost); // without `reconnect` that is the end
await assert.rejects(owner.ping(), ConnectionLost);
await owner.connect(); // unless it is asked to
await owner.ping();

// Refused, superseded, closed.
await assert.rejects(new AppClient(url, "owner", "wrong").connect(), { name: "HandshakeRefused", error: 401 });
await assert.rejects(new AppClient("ws://127.0.0.1:9/api/ws", "owner", "at-owner").connect(), ConnectionLost);
const superseded = next(guest, "offline");
const newer = new AppClient(url, "guest", "at-guest");
await newer.connect();
const why = await superseded;
assert(why instanceof HandshakeRefused && why.error === 406);
const waiting = newer.query("lamp");
const closed = new Promise((done) => newer._socket.addEventListener("close", done));
newer.close();
await assert.rejects(waiting, ConnectionLost);
await newer.connect(); // while the old socket still closes
await closed;
await newer.ping();
for (const client of [newer, owner, lamp, silent]) client.close();
