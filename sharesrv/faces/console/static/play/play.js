// The page /play of a sandbox: the lamp, what to try next, and the button by which three minutes pass.
import { DeviceClient } from "/client.js";
import { GuestsPhone, OwnersPhone, timerRows } from "./phones.js";
import { MINUTES, Party, byId, clock, isCalm, now, page, sandbox, setClock, tried } from "./shared.js";

class Lamp extends Party {
  constructor({ deviceid, devicekey }) {
    super(deviceid);
    this.params = {};
    const take = (_deviceid, params) => {
      Object.assign(this.params, params);
      page.render();
    };
    this.device = new DeviceClient(sandbox.ws, deviceid, devicekey, take, { reconnect: true, onframe: this.onframe });
    this.device.addEventListener(
      "offline",
      ({ detail }) => detail && this.say("Another lamp has taken its place.", true),
    );
    this.on("press", () => this.press());
  }

  async press() {
    const params = { switch: this.params.switch === "on" ? "off" : "on" };
    await this.device.report(params);
    Object.assign(this.params, params);
  }

  render() {
    const state = this.params.switch === "on" ? "on" : "off";
    document.body.dataset.lamp = state;
    this.root.querySelector("svg").ariaLabel = `The lamp is ${state}`;
    this.list("timers", timerRows(this.params.timers ?? [], null));
  }
}

/** What to try next: a sentence, and the button for it. */
function next() {
  if (!owner.app.isOnline || !guest.app.isOnline) return ["One moment: the phones connect."];
  if (guest.question)
    return ["Now the guest is asked. Accept it, refuse it, or let three minutes pass.", guest.button("accept")];
  const has = guest.devices.some((each) => each.deviceid === "lamp");
  if (!has && now() < tried.again)
    return ["Nobody answered. It may be asked again three minutes later.", byId("later")];
  if (!has && tried.code) return ["The guest scans the code.", guest.button("scan")];
  if (!has && tried.taken && !tried.scanned) return ["It was taken back. Now share by a code.", owner.button("code")];
  if (!has) return ["Share the lamp: press the bright button on the owner’s phone.", owner.button("share")];
  if (!tried.switched)
    return ["The guest has the lamp now. Switch it, from the guest’s phone.", guest.button("switch")];
  if (!tried.timer && !tried.denied) return ["It works. May the guest add a timer, too?", guest.button("timer")];
  if (!tried.timer && !(owner.grant?.permit & 1))
    return ["No: 403. The owner must allow that first.", owner.root.querySelector('[data-permit="1"]')];
  if (!tried.timer) return ["Now it is allowed. Add the timer.", guest.button("timer")];
  if (!tried.taken) return ["The lamp has the timer. The owner can take the lamp back.", owner.button("cancel")];
  return ["That is all of it. Play on, and look at the frames below."];
}

page.render = () => {
  for (const party of [owner, guest, lamp]) party.render();
  const [hint, target] = next();
  if (byId("hint").textContent !== hint) byId("hint").textContent = hint;
  const before = document.querySelector(".next");
  if (before === target) return;
  before?.classList.remove("next");
  target?.classList.add("next");
  target?.scrollIntoView({ block: "nearest", behavior: isCalm ? "auto" : "smooth" });
};

async function threeMinutesLater() {
  const answer = await fetch("/sandbox/clock", { method: "POST", body: JSON.stringify({ advance_ms: MINUTES }) });
  setClock((await answer.json()).now_ms);
  tick();
}

function tick() {
  byId("now").textContent = clock(now());
  byId("now").dateTime = new Date(now()).toISOString();
  owner.tick();
  guest.tick();
  if (tried.again && now() >= tried.again) {
    tried.again = 0;
    page.render();
  }
}

const [ownersAccount, guestsAccount] = sandbox.accounts;
const lamp = new Lamp(sandbox.devices[0]);
const owner = new OwnersPhone(ownersAccount, guestsAccount);
const guest = new GuestsPhone(guestsAccount, ownersAccount);
byId("later").addEventListener("click", threeMinutesLater);
setInterval(tick, 250);
tick();
await lamp.attempt(() => lamp.device.connect());
await Promise.all([owner, guest].map((phone) => phone.attempt(() => phone.app.connect())));
await owner.attempt(() => owner.refresh());
Object.assign(lamp.params, owner.devices.find((each) => each.deviceid === lamp.id)?.params);
page.render();
