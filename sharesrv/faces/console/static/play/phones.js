// The owner's phone and the guest's, each with a WebSocket of its own, through the client that apps use.
import { AppClient } from "/client.js";
import { MINUTES, Party, inWords, log, make, minutes, now, page, sandbox, tried } from "./shared.js";

const DAY = 86_400_000;
const SHARING = "/v2/binding/enduserapi";
const PERMIT = { 1: "add", 2: "edit", 4: "delete", 8: "turn on and off" };
const TIMES = [
  [22, "off"],
  [7, "on"],
  [18, "on"],
  [0, "off"],
];

class Phone extends Party {
  constructor(account, other) {
    super(account.apikey);
    this.account = account;
    this.other = other;
    this.devices = [];
    this.chosen = "";
    this.app = new AppClient(sandbox.ws, account.apikey, account.token, { reconnect: true, onframe: this.onframe });
    this.app.addEventListener("online", () => this.attempt(() => (this.say(""), this.refresh())));
    this.app.addEventListener("offline", ({ detail }) => this.attempt(() => this.lost(detail)));
    this.app.addEventListener("update", ({ detail }) => this.attempt(() => this.merge(detail.deviceid, detail.params)));
    for (const type of ["sysmsg", "updateShare", "cancelShare"])
      this.app.addEventListener(type, ({ detail }) => this.attempt(() => this.heard(detail)));
    this.on("connect", () => this.app.connect());
    this.on("switch", () => this.update({ switch: this.isOn ? "off" : "on" }));
    this.on("timer", () => this.update({ timers: [...this.timers, this.newTimer()] }));
  }

  get device() {
    return this.devices.find((each) => each.deviceid === this.chosen) ?? this.devices[0];
  }

  get isOn() {
    return this.device.params.switch === "on";
  }

  get timers() {
    return this.device.params.timers ?? [];
  }

  /** The other account's side of a device, where it is shared. */
  get grant() {
    return this.device?.sharedTo?.find((each) => each.apikey === this.other.apikey);
  }

  newTimer() {
    const [hour, to] = TIMES[this.timers.length % TIMES.length];
    return { mId: this.app.newSequence(), type: "repeat", at: `0 ${hour} * * *`, enabled: 1, do: { switch: to } };
  }

  /** Call the HTTP door as this account. */
  async fetch(method, path) {
    return fetch(path, { method, headers: { Authorization: this.account.token } });
  }

  /** One of the calls of device sharing; its data. */
  async call(method, name, params) {
    const path = `${SHARING}/${name}?${new URLSearchParams(params)}`;
    log(this.id, "→", `${method} ${path}`);
    const text = await (await this.fetch(method, path)).text();
    log(this.id, "←", text);
    const { code, msg, data } = JSON.parse(text);
    if (code !== 200) throw new Error(`${code}: ${msg}`);
    return data;
  }

  async refresh() {
    const { devicelist } = await (await this.fetch("GET", "/api/user/device")).json();
    const rank = ({ deviceid }) => (deviceid === "lamp" ? 0 : 1);
    this.devices = (devicelist ?? []).sort((one, two) => rank(one) - rank(two));
  }

  lost(error) {
    this.button("connect").hidden = !error;
    if (!error) this.say("The server is away. The phone tries again.", true);
    else if (error.error === 406) this.say("This account has signed in somewhere else, maybe in another tab.", true);
    else this.say(`${error.message}. Was the sandbox started anew? Then load this page again.`, true);
  }

  merge(deviceid, params) {
    Object.assign(this.devices.find((each) => each.deviceid === deviceid)?.params ?? {}, params);
  }

  async heard({ action, deviceid, params }) {
    const device = this.devices.find((each) => each.deviceid === deviceid);
    if (action !== "sysmsg") await this.refresh();
    else if (device) device.online = params.online;
  }

  /** Control the chosen device, and say how it went. */
  async update(params) {
    const { deviceid, apikey } = this.device;
    const answer = await this.app.update(deviceid, params, { owner: apikey });
    if (answer.error) {
      this.say(inWords(answer), true);
    } else {
      this.merge(deviceid, params);
      this.say(params.timers ? "Done: the lamp has the timers." : `Done: it is ${params.switch}.`);
    }
    this.remember(params, answer);
  }

  /** Note what was tried. */
  remember(_params, _answer) {}

  render() {
    const device = this.device;
    this.part("presence").textContent = this.app.isOnline ? "connected" : "not connected";
    this.part("presence").dataset.online = this.app.isOnline ? "yes" : "no";
    if (this.app.isOnline) this.button("connect").hidden = true;
    this.list("devices", this.devices.length > 1 ? this.devices.map((each) => this.choice(each)) : []);
    this.part("device").hidden = !device;
    if (!device) return;
    this.part("name").textContent = device.name;
    this.part("state").textContent =
      `${device.online ? "Connected" : "Not connected"}; it is ${this.isOn ? "on" : "off"}.`;
    this.button("switch").textContent = this.isOn ? "Turn off" : "Turn on";
    this.list("timers", timerRows(this.timers, this));
  }

  choice({ deviceid, name }) {
    const button = make(
      "button",
      {
        type: "button",
        onclick: () => {
          this.chosen = deviceid;
          page.render();
        },
      },
      name,
    );
    button.ariaPressed = String(deviceid === this.device.deviceid);
    button.dataset.key = `${this.id} ${deviceid}`;
    return make("li", {}, button);
  }
}

/** The rows of a list of timers; on a phone with buttons. */
export function timerRows(timers, phone) {
  if (!timers.length) return [make("li", { className: "empty" }, "None yet.")];
  return timers.map((timer) => {
    const hour = Number(/^0 (\d+) \* \* \*$/.exec(timer.at)?.[1] ?? NaN); // NaN: it is not of this page
    const name = hour >= 0 ? `${String(hour).padStart(2, "0")}:00` : `${timer.at ?? timer.type ?? timer.mId}`;
    const row = make("li", {}, make("span", {}, `${name} turn ${timer.do?.switch ?? "…"}`));
    row.dataset.enabled = String(timer.enabled);
    const button = (text, label, change) => {
      const act = () => phone.update({ timers: timers.flatMap((each) => (each === timer ? change : [each])) });
      const made = make(
        "button",
        { type: "button", onclick: () => phone.attempt(act), ariaLabel: `${label}: ${name}` },
        text,
      );
      made.dataset.key = `${phone.id} ${timer.mId} ${label}`;
      row.append(made);
    };
    if (phone) {
      if (hour >= 0) button("Later", "An hour later", [{ ...timer, at: `0 ${(hour + 1) % 24} * * *` }]);
      button(timer.enabled ? "Pause" : "Resume", timer.enabled ? "Pause" : "Resume", [
        { ...timer, enabled: timer.enabled ? 0 : 1 },
      ]);
      button("×", "Delete", []);
    }
    return row;
  });
}

export class OwnersPhone extends Phone {
  /** When the question about a device ends. @type {Map<string, number>} */
  asked = new Map();

  constructor(account, other) {
    super(account, other);
    this.on("cancel", () => this.takeBack());
    this.on("code", () => (tried.code ? this.hideCode() : this.showCode()));
    this.part("share").addEventListener("submit", (event) => {
      event.preventDefault();
      this.attempt(() => this.share());
    });
    this.part("permit").addEventListener("change", () => this.attempt(() => this.grant && this.changePermit()));
  }

  get boxes() {
    return [...this.part("permit").querySelectorAll("input")];
  }

  get permit() {
    return this.boxes.reduce((sum, box) => sum + (box.checked ? Number(box.value) : 0), 0);
  }

  async share() {
    const { deviceid, name } = this.device;
    const how = {
      deviceName: name,
      userName: this.account.nickname,
      note: this.part("note").querySelector("input").value,
      permit: this.permit,
    };
    const sent = this.app.share(deviceid, this.other.uid, how);
    this.asked.set(deviceid, now() + MINUTES);
    this.say("The guest is asked now.");
    page.render();
    const answer = await sent.finally(() => this.asked.delete(deviceid));
    await this.refresh();
    const words = [
      "",
      "Nobody has that login name.",
      "The guest has accepted.",
      "The guest has refused, or you took the question back.",
      "The guest has it already.",
    ];
    const isOver = answer.error === 504;
    if (isOver) tried.again = now() + MINUTES;
    if (answer.retryAfter) tried.again = now() + answer.retryAfter * 1000;
    this.say(
      isOver ? "504: nobody answered for three minutes." : answer.error ? inWords(answer) : words[answer.result ?? 0],
      answer.error !== 0,
    );
  }

  async changePermit() {
    const answer = await this.app.updateShare(this.device.deviceid, this.other.uid, { permit: this.permit });
    await this.refresh();
    this.say(answer.error ? inWords(answer) : "The guest has been told what it may do now.", answer.error !== 0);
  }

  async takeBack() {
    const had = this.grant;
    const answer = await this.app.cancelShare(this.device.deviceid, this.other.uid, { deviceName: this.device.name });
    await this.refresh();
    if (had) tried.taken = true;
    this.say(
      answer.error ? inWords(answer) : had ? "The guest has it no longer." : "The question is taken back.",
      answer.error !== 0,
    );
  }

  async showCode() {
    const { pk, dk } = sandbox.devices.find((each) => each.deviceid === this.device.deviceid);
    const code = await this.call("POST", "shareInfo", { pk, dk, acceptingExpireAt: String(now() + DAY) });
    const picture = await (await this.fetch("GET", `/share/${code}/qr.svg`)).text();
    this.part("qr").querySelector("img").src = `data:image/svg+xml,${encodeURIComponent(picture)}`;
    this.part("code").textContent = tried.code = code;
    this.say("Whoever scans this code within a day has the device.");
  }

  hideCode() {
    tried.code = "";
  }

  async heard(frame) {
    await super.heard(frame);
    const words = { left: "The guest has left the share.", expired: "The share has ended." };
    if (frame.action === "cancelShare" && words[frame.params.reason]) this.say(words[frame.params.reason]);
  }

  render() {
    super.render();
    if (!this.device) return;
    const { grant } = this;
    const until = this.asked.get(this.device.deviceid);
    this.part("sharing").textContent = grant
      ? "The guest has it"
      : until
        ? "Waiting for an answer"
        : "Share it with the guest";
    this.part("waiting").hidden = !until;
    this.part("share").hidden = Boolean(until);
    this.part("note").hidden = this.button("share").hidden = Boolean(grant);
    this.button("cancel").hidden = !grant && !until;
    this.button("cancel").textContent = grant ? "Take it back" : "Take the question back";
    if (grant) for (const box of this.boxes) box.checked = Boolean(grant.permit & Number(box.value));
    this.part("qr").hidden = !tried.code;
    this.button("code").textContent = tried.code ? "Hide the code" : "Show a QR code";
    this.tick();
  }

  tick() {
    const until = this.asked.get(this.device?.deviceid);
    if (until) showLeft(this.part("waiting"), until);
  }
}

export class GuestsPhone extends Phone {
  /** Offers that wait for an answer. @type {any[]} */
  questions = [];

  constructor(account, other) {
    super(account, other);
    this.app.addEventListener("offer", ({ detail }) =>
      this.attempt(() => {
        this.questions.push(detail);
        this.say("");
      }),
    );
    this.on("accept", () => this.answer(true));
    this.on("refuse", () => this.answer(false));
    this.on("leave", () => this.leave());
    this.on("scan", () => this.scan());
  }

  get question() {
    return this.questions[0];
  }

  async answer(accepts) {
    const offer = this.question;
    const answer = await (accepts ? offer.accept() : offer.refuse());
    this.questions = this.questions.filter((each) => each !== offer);
    await this.refresh();
    this.say(
      answer.error
        ? inWords(answer)
        : accepts
          ? `Yours too now: ${offer.params.deviceName}.`
          : "Refused: the owner is told.",
      answer.error !== 0,
    );
  }

  async leave() {
    await this.call("DELETE", "shareUserUnshareDevice", { shareCode: this.device.sharedBy.shareCode });
    await this.refresh();
    this.say("You have left the share: the owner is told.");
  }

  async scan() {
    await this.call("POST", "shareDevice", { shareCode: tried.code });
    Object.assign(tried, { code: "", scanned: true });
    await this.refresh();
    this.say("The code was good: the device is yours too now.");
  }

  async heard(frame) {
    const { action, deviceid, params } = frame;
    await super.heard(frame);
    if (action === "updateShare") this.say("The owner has changed what you may do.");
    if (action !== "cancelShare") return;
    this.questions = this.questions.filter((each) => each.deviceid !== deviceid);
    const words = {
      timeout: "Three minutes are over: the question is gone.",
      cancelled: "The owner has taken it back.",
      expired: "The share has ended.",
    };
    if (words[params.reason]) this.say(words[params.reason]);
  }

  remember(params, answer) {
    if (params.switch && !answer.error) tried.switched = true;
    if (params.timers && answer.error === 403) tried.denied = true;
    if (params.timers && !answer.error) tried.timer = true;
  }

  render() {
    super.render();
    const { question } = this;
    this.part("question").hidden = !question;
    this.part("empty").hidden = Boolean(this.device || question);
    this.button("scan").hidden = !tried.code;
    this.part("nocode").hidden = Boolean(tried.code);
    if (!question) return;
    this.part("asked").textContent =
      `${question.params.userName} wants to share with you: ${question.params.deviceName}`;
    this.part("words").textContent = question.params.note && `“${question.params.note}”`;
    const may = Object.entries(PERMIT)
      .filter(([bit]) => question.params.permit & Number(bit))
      .map(([, verb]) => verb);
    this.part("may").textContent = may.length
      ? `You may use it, and ${may.join(", ")} timers.`
      : "You may use it, but not its timers.";
    this.tick();
  }

  tick() {
    if (this.question) showLeft(this.part("question"), this.question.params.expireAt);
  }
}

function showLeft(root, until) {
  root.querySelector("[role=timer]").textContent = `${minutes(Math.min(MINUTES, until - now()))} left`;
  root.querySelector("progress").value = Math.max(0, (until - now()) / 1000);
}
