// @ts-check
/**
 * The client for browsers and Node.js: an app's or a device's session over the server's WebSocket.
 *
 *     import { AppClient } from "sharesrv-client"; // in a browser "/client.js"
 *
 *     const app = new AppClient("ws://127.0.0.1:8765/api/ws", apikey, token);
 *     app.addEventListener("offer", ({ detail: offer }) => offer.accept());
 *     await app.connect();
 *     const answer = await app.share(deviceid, "+8613570211955", { deviceName: "Lamp", userName: "Owner" });
 *
 * A browser and Node.js 22 have a `WebSocket`; elsewhere pass one as an option. Answers are found by their `sequence`;
 * one whose `error` is not 0 is returned, not thrown, as its code is what matters. With `reconnect` a client comes back with
 * back-off and resumes: a request that was under way is asked again under its sequence. An `update` is sent once at most:
 * where its answer is lost with the connection, `OutcomeUnknown` is thrown.
 *
 * @module
 */

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 30_000;
const ANSWER_WAIT_MS = 30_000; // for a handshake
const PASSING = [412, 500]; // errors of a handshake after which a later one may be accepted
const SUPERSEDED = 4406; // the close code of a connection that a newer one of the same party has replaced

/**
 * @typedef {Record<string, any>} Frame
 *
 * @typedef {object} Answer `error` 0 is done, `result` that of a share: 1 no such account, 2 accepted, 3 refused, 4 has it already.
 * @property {number} error
 * @property {string} [sequence]
 * @property {number} [result]
 * @property {string} [apikey]
 * @property {string} [deviceid]
 * @property {string} [reason] for a developer
 * @property {number} [retryAfter] in whole seconds
 * @property {Frame} [params]
 *
 * @typedef {object} Options
 * @property {boolean} [reconnect] come back when the connection is lost; off by default
 * @property {(direction: "→" | "←", text: string) => void} [onframe] called with every frame but pings, as it is
 * @property {any} [WebSocket] the class to connect with, where there is no global one
 *
 * @typedef {(deviceid: string, params: Frame) => number | void | Promise<number | void>} UpdateHandler
 *
 * @typedef {{ frame: Frame, isSent: boolean, resolve: (answer: Answer) => void, reject: (error: Error) => void }} Request
 *
 * @typedef {{ socket: any, ended: Promise<number> }} Link a connection that has shaken hands; `ended` is its close code
 */

/** The connection is not there: lost, closed, or never made. */
export class ConnectionLost extends Error {
  name = "ConnectionLost";
}

/** The connection was lost before the answer to an `update`. The device may have carried it out, or not. */
export class OutcomeUnknown extends ConnectionLost {
  name = "OutcomeUnknown";
}

/** The server does not take this token, account or device; 406: another connection has taken its place. */
export class HandshakeRefused extends Error {
  name = "HandshakeRefused";

  /** @param {number} error @param {string} reason */
  constructor(error, reason) {
    super(`${error}: ${reason}`);
    this.error = error;
    this.reason = reason;
  }
}

/** A command whose result cannot be told was refused. `answer` says why. */
export class CommandRefused extends Error {
  name = "CommandRefused";

  /** @param {Answer} answer */
  constructor(answer) {
    super(`${answer.error}: ${answer.reason}`);
    this.answer = answer;
  }
}

/** An offer to this account, open when it came. */
export class Offer {
  /** @param {AppClient} app @param {Frame} frame */
  constructor(app, frame) {
    this.app = app;
    /** @type {string} */ this.sharer = frame.apikey;
    /** @type {string} */ this.deviceid = frame.deviceid;
    /** @type {string} */ this.sequence = frame.sequence;
    /** @type {string} */ this.s_seq = frame.s_seq;
    /** `uid, deviceName, userName, permit, note, shareTime, ownerUid`, and `expireAt` in ms. @type {Frame} */
    this.params = frame.params;
  }

  /** Say yes. Returns the server's acknowledgement. */
  accept() {
    return this.app.answer(this, 2);
  }

  /** Say no. Returns the server's acknowledgement. */
  refuse() {
    return this.app.answer(this, 3);
  }
}

/**
 * One party's session. Its events: `online`; `offline`, whose detail is the Error that ended it, or null where it comes back.
 */
class Client extends EventTarget {
  /** @param {string} url @param {Options} [options] */
  constructor(url, { reconnect = false, onframe = () => {}, WebSocket = globalThis.WebSocket } = {}) {
    super();
    if (!WebSocket) throw new TypeError("there is no WebSocket here: pass a class as the option WebSocket");
    this.url = url;
    this.isOnline = false;
    this._reconnect = reconnect;
    this._onframe = onframe;
    this._WebSocket = WebSocket;
    this._lastSequence = 0;
    /** @type {any} */ this._socket = null;
    /** @type {Map<string, Request>} */ this._requests = new Map();
    /** @type {{ resolve: (value: void) => void, reject: (error: Error) => void }[]} */ this._pings = [];
    /** Why nothing can be asked. @type {Error | null} */ this._over = new ConnectionLost("connect first");
    /** Ends a wait. @type {() => void} */ this._wake = () => {};
  }

  /** Connect and shake hands. When it returns, all that had waited for this party has been heard. Throws HandshakeRefused. */
  async connect() {
    if (!this._over) throw new Error("it is connected already");
    this._over = null;
    try {
      const link = await this._shakeHands();
      this._stay(link);
    } catch (error) {
      this._end(/** @type {Error} */ (error));
      throw error;
    }
  }

  /** Close the connection. What still waits for an answer throws ConnectionLost. */
  close() {
    this._end(new ConnectionLost("the client was closed"));
    this._socket?.close(1000);
    this._wake();
  }

  /** A timestamp in ms, as text; never the same twice. */
  newSequence() {
    this._lastSequence = Math.max(this._lastSequence + 1, Date.now());
    return String(this._lastSequence);
  }

  /**
   * Wait until the server has read all that was sent before, and all that it had written is here.
   *
   * @returns {Promise<void>}
   */
  ping() {
    if (this._over) return Promise.reject(this._over);
    return new Promise((resolve, reject) => {
      this._pings.push({ resolve, reject });
      if (this.isOnline) this._socket.send("ping");
    });
  }

  /** What the handshake says of this party. @returns {Frame} */
  _hello() {
    throw new Error("a client is an AppClient or a DeviceClient");
  }

  /** Deal with what the server pushes. @param {Frame} _frame */
  _take(_frame) {}

  /** @param {string} type @param {any} detail */
  _tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** @param {Frame} frame */
  _send(frame) {
    const text = JSON.stringify(frame);
    this._onframe("→", text);
    this._socket.send(text);
  }

  /**
   * Send a frame, now or as soon as the client is back, and wait for its answer.
   *
   * @param {Frame} frame
   * @returns {Promise<Answer>}
   */
  _ask(frame) {
    if (this._over) return Promise.reject(this._over);
    if (this._requests.has(frame.sequence)) {
      return Promise.reject(new Error(`another call under the sequence ${frame.sequence} still waits for its answer`));
    }
    return new Promise((resolve, reject) => {
      const request = { frame, isSent: false, resolve, reject };
      this._requests.set(frame.sequence, request);
      if (this.isOnline) this._sendRequest(request);
    });
  }

  /** @param {Request} request */
  _sendRequest(request) {
    request.isSent = true;
    this._send(request.frame);
  }

  /**
   * Open a socket and shake hands. What waits behind the handshake comes before its `pong`.
   *
   * @returns {Promise<Link>}
   */
  _shakeHands() {
    const socket = (this._socket = new this._WebSocket(this.url));
    return new Promise((resolve, reject) => {
      /** @type {any} */ let beat;
      /** @type {Error} */ let why = new ConnectionLost("the connection was lost before the handshake was done");
      /** @type {(code: number) => void} */ let ended;
      /** @type {Link} */ const link = { socket, ended: new Promise((done) => (ended = done)) };
      const late = setTimeout(() => socket.close(), ANSWER_WAIT_MS);
      let hasAnswer = false;
      socket.onopen = () => {
        const ts = Math.floor(Date.now() / 1000);
        this._send({ ...this._hello(), version: 8, ts, sequence: this.newSequence() });
      };
      socket.onmessage = (/** @type {{ data: any }} */ { data }) => {
        if (socket !== this._socket || this._over) return;
        if (data === "pong") {
          clearTimeout(late);
          if (this.isOnline) this._pings.shift()?.resolve();
          else this._resume(() => resolve(link));
          return;
        }
        this._onframe("←", data);
        const frame = JSON.parse(data);
        if (hasAnswer) {
          this._read(frame);
        } else if (frame.error === 0) {
          hasAnswer = true;
          beat = setInterval(() => socket.send("ping"), frame.config.hbInterval * 1000);
          socket.send("ping");
        } else {
          why = new HandshakeRefused(frame.error, frame.reason);
          socket.close();
        }
      };
      socket.onclose = (/** @type {{ code: number }} */ { code }) => {
        clearTimeout(late);
        clearInterval(beat);
        ended(code);
        reject(this._over ?? why);
      };
      socket.onerror = () => {
        // Some tell no close of what never opened.
        if (socket.readyState !== 1) setTimeout(socket.onclose, 0, { code: 1006 });
      };
    });
  }

  /** Ask again for what has not been answered; only now, as one asked twice would be new if the first has ended. */
  _resume(/** @type {() => void} */ done) {
    this.isOnline = true;
    this._pings.splice(0).forEach(({ resolve }) => resolve());
    for (const request of this._requests.values()) this._sendRequest(request);
    done();
    this._tell("online", null);
  }

  /** Remain, over one connection after the other, until it is over. @param {Link} link */
  async _stay(link) {
    try {
      for (;;) {
        const code = await link.ended;
        if (this._over || link.socket !== this._socket) return;
        this.isOnline = false;
        if (code === SUPERSEDED) throw new HandshakeRefused(406, "another connection has taken the place of this one");
        if (!this._reconnect) throw new ConnectionLost(`the connection was lost, close code ${code}`);
        this._lose();
        this._tell("offline", null);
        link = await this._comeBack();
      }
    } catch (error) {
      this._end(/** @type {Error} */ (error));
    }
  }

  /** @returns {Promise<Link>} */
  async _comeBack() {
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(2 * wait, LONGEST_WAIT_MS)) {
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, wait * (0.5 + Math.random() / 2)); // so that not all come at once
        this._wake = () => (clearTimeout(timer), resolve(null));
      });
      if (this._over) throw this._over;
      try {
        return await this._shakeHands();
      } catch (error) {
        const passes =
          error instanceof HandshakeRefused ? PASSING.includes(error.error) : error instanceof ConnectionLost;
        if (this._over || !passes) throw error;
      }
    }
  }

  /** The connection is gone, and the client comes back: an `update` that was sent must not be sent twice. */
  _lose() {
    this._pings.splice(0).forEach(({ resolve }) => resolve());
    for (const [sequence, { frame, isSent, reject }] of this._requests) {
      if (frame.action === "update" && isSent) {
        this._requests.delete(sequence);
        reject(new OutcomeUnknown("the connection was lost before the device's answer"));
      }
    }
  }

  /** Nothing more comes. @param {Error} error */
  _end(error) {
    if (this._over) return;
    this.isOnline = false;
    this._over = error;
    this._pings.splice(0).forEach(({ reject }) => reject(error));
    for (const { frame, isSent, reject } of this._requests.values()) {
      const isUnknown = frame.action === "update" && isSent;
      reject(isUnknown ? new OutcomeUnknown("the connection was lost before the device's answer") : error);
    }
    this._requests.clear();
    this._tell("offline", error);
  }

  /** Take an answer to the one who waits for it. @param {Frame} frame */
  _read(frame) {
    if ("action" in frame) {
      this._take(frame);
    } else {
      const request = this._requests.get(frame.sequence);
      this._requests.delete(frame.sequence);
      request?.resolve(/** @type {Answer} */ (frame));
    }
  }
}

/**
 * An app: one account's session. Its events, beside `online` and `offline`: `offer`, whose detail is an Offer; `update`,
 * `sysmsg`, `updateShare` and `cancelShare`, whose detail is the frame that was pushed.
 */
export class AppClient extends Client {
  /**
   * @param {string} url `ws://HOST:PORT/api/ws`
   * @param {string} apikey the account's
   * @param {string} at its access token
   * @param {Options} [options]
   */
  constructor(url, apikey, at, options) {
    super(url, options);
    this.apikey = apikey;
    this._at = at;
    /** Offers that were told, by `s_seq`: after a reconnection an open one comes again. @type {Map<string, number>} */
    this._seen = new Map();
  }

  /**
   * Offer a device to the account with this login name, and wait for the end of it: up to three minutes.
   *
   * @param {string} deviceid
   * @param {string} uid
   * @param {{ deviceName: string, userName: string, note?: string, permit?: number, sequence?: string }} how `permit` is a
   *   sum: 1 add timers, 2 edit them, 4 delete them, 8 turn them on and off
   */
  share(deviceid, uid, { deviceName, userName, note = "", permit = 0, sequence }) {
    return this.call("share", deviceid, { uid, deviceName, userName, note, permit }, { sequence });
  }

  /**
   * Change a grant: result 2 done, 0 no active grant, 1 no such account.
   *
   * @param {string} deviceid
   * @param {string} uid
   * @param {{ permit?: number, note?: string }} what
   */
  updateShare(deviceid, uid, { permit, note }) {
    return this.call("updateShare", deviceid, { uid, permit, note });
  }

  /**
   * End the grants of an account, or withdraw the open offer to it.
   *
   * @param {string} deviceid
   * @param {string} uid
   * @param {{ deviceName: string }} how
   */
  cancelShare(deviceid, uid, { deviceName }) {
    return this.call("cancelShare", deviceid, { uid, deviceName });
  }

  /**
   * Control a device: `params` go to it, at most once, and its answer comes back. Throws OutcomeUnknown.
   *
   * @param {string} deviceid
   * @param {Frame} params
   * @param {{ owner?: string }} [whose] its owner's apikey, where known
   */
  update(deviceid, params, { owner } = {}) {
    return this.call("update", deviceid, params, { apikey: owner });
  }

  /**
   * The stored params of a device; without names, all. Throws CommandRefused.
   *
   * @param {string} deviceid
   * @param {string[]} [names]
   * @param {{ owner?: string }} [whose]
   * @returns {Promise<Frame>}
   */
  async query(deviceid, names = [], { owner } = {}) {
    const answer = await this.call("query", deviceid, names, { apikey: owner });
    if (answer.error !== 0 || !answer.params) throw new CommandRefused(answer);
    return answer.params;
  }

  /**
   * Answer an offer, which its `s_seq` names: 2 accepts, 3 refuses.
   *
   * @param {Offer} offer
   * @param {2 | 3} result
   */
  answer(offer, result) {
    const { deviceid, s_seq } = offer;
    return this._ask({ error: 0, result, apikey: this.apikey, deviceid, sequence: this.newSequence(), s_seq });
  }

  /**
   * Send a command and wait for its answer.
   *
   * @param {string} action
   * @param {string} deviceid
   * @param {unknown} params
   * @param {{ sequence?: string, apikey?: string }} [as] `apikey` is the device's owner's, where that is another account
   */
  call(action, deviceid, params, { sequence = this.newSequence(), apikey } = {}) {
    const parties = apikey === undefined ? { apikey: this.apikey } : { apikey, selfApikey: this.apikey };
    return this._ask({ action, ...parties, deviceid, userAgent: "app", sequence, params });
  }

  _hello() {
    const { apikey, _at: at } = this;
    return { action: "userOnline", at, userAgent: "app", apikey, nonce: this.newSequence() };
  }

  /** @param {Frame} frame */
  _take(frame) {
    if (frame.action !== "share") {
      this._tell(frame.action, frame);
    } else if (!this._seen.has(frame.s_seq)) {
      const now = Date.now();
      for (const [s_seq, until] of this._seen) if (until <= now) this._seen.delete(s_seq);
      this._seen.set(frame.s_seq, frame.params.expireAt);
      this._tell("offer", new Offer(this, frame));
    }
  }
}

/** A device's session. Its events are `online` and `offline`. */
export class DeviceClient extends Client {
  /**
   * @param {string} url `ws://HOST:PORT/api/ws`
   * @param {string} deviceid
   * @param {string} devicekey its secret
   * @param {UpdateHandler} onupdate called with the deviceid (a bridge's sub-devices are reached through it) and the params
   *   of each command; what it returns is the device's answer: nothing or 0 for yes, else an error
   * @param {Options} [options]
   */
  constructor(url, deviceid, devicekey, onupdate, options) {
    super(url, options);
    this.deviceid = deviceid;
    this._devicekey = devicekey;
    this._onupdate = onupdate;
  }

  /**
   * Tell the server which params have changed, here or in a sub-device. Returns its answer.
   *
   * @param {Frame} params
   * @param {string} [deviceid]
   */
  report(params, deviceid = this.deviceid) {
    return this._ask({ action: "update", deviceid, userAgent: "device", sequence: this.newSequence(), params });
  }

  _hello() {
    return { action: "register", userAgent: "device", deviceid: this.deviceid, apikey: this._devicekey };
  }

  /** @param {Frame} frame */
  async _take({ action, deviceid, sequence, params }) {
    if (action !== "update") return;
    const socket = this._socket;
    let error = 500; // where the handler throws
    try {
      error = (await this._onupdate(deviceid, params)) ?? 0;
    } finally {
      if (socket === this._socket && socket.readyState === 1) this._send({ error, deviceid, sequence });
    }
  }
}
