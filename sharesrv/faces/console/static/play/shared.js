// What the parts of /play share: the sandbox and its time, the log, and what the phones and the lamp have in common.

export const MINUTES = 180_000; // that a question waits, and the button passes
const LOG_MAX = 300; // lines
const WORDS = {
  401: "this account is not known",
  403: "not permitted",
  404: "there is none",
  406: "it has signed in elsewhere",
  412: "too many at once",
  500: "the server failed",
  503: "the device is not connected",
  504: "no answer in time",
};

/** @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);
export const sandbox = await (await fetch("/sandbox")).json();
const secrets = [...sandbox.accounts.map((each) => each.token), ...sandbox.devices.map((each) => each.devicekey)];
let ahead = sandbox.now_ms - Date.now();
/** Take over the sandbox's time. */
export const setClock = (now_ms) => (ahead = now_ms - Date.now());
/** The sandbox's time, in ms. */
export const now = () => Date.now() + ahead;
/** `render` shows everything as it is now. */
export const page = { render() {} };
export const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;

/** What was tried, for the hint; `code` is on the owner's screen, `again` is when a question may be repeated. */
export const tried = { switched: false, denied: false, timer: false, taken: false, code: "", scanned: false, again: 0 };

export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
export const minutes = (ms) => {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
};
export const inWords = ({ error, reason, retryAfter }) =>
  retryAfter
    ? `${error}: too soon. It can be asked again in ${minutes(retryAfter * 1000)}.`
    : `${error}: ${WORDS[error] ?? "it was not done"}${reason ? ` (${reason})` : ""}.`;

/** @param {string} tag @param {Record<string, any>} [properties] @param {any[]} children @returns {any} */
export function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Write a line of the log, the newest first. */
export function log(party, direction, text) {
  for (const secret of secrets) text = text.replaceAll(secret, "…");
  const isFrame = text.startsWith("{");
  const frame = isFrame ? JSON.parse(text) : {};
  const codes = ["result", "error", "code"].filter((key) => key in frame).map((key) => `${key} ${frame[key]}`);
  const kind = frame.action ?? codes[0]?.replace("error 0", "done") ?? "HTTP";
  const time = make("time", { dateTime: new Date(now()).toISOString() }, clock(now()));
  const way = `${party[0].toUpperCase()}${party.slice(1)} ${direction} server`;
  const line = make(
    "summary",
    {},
    time,
    make("span", { className: "badge" }, way),
    make("span", { className: "kind" }, kind),
    make("span", {}, text),
  );
  const row = make(
    "li",
    {},
    make("details", {}, line, make("pre", {}, isFrame ? JSON.stringify(frame, null, 2) : text)),
  );
  Object.assign(row.dataset, { party, bad: frame.error || (frame.code ?? 200) !== 200 ? "yes" : "no" });
  byId("frames").prepend(row);
  byId("frames").children[LOG_MAX]?.remove();
}

/** Where the focus was last. @type {any} */
let focused = null;
document.addEventListener("focusin", ({ target }) => (focused = target));

/** Let who plays by keyboard go on: where the focus was, or, where that has gone, at what comes next. */
function keepFocus() {
  const isGone = focused && (!focused.isConnected || focused.closest("[hidden]"));
  const to = isGone ? document.querySelector(".next") : focused;
  if (isGone || document.activeElement === document.body) to?.focus({ preventScroll: true });
}

/** What a phone and the lamp have in common: a part of the page, and a connection that is shown. */
export class Party {
  constructor(id) {
    this.id = id;
    this.root = byId(id);
    this.onframe = (direction, text) => log(id, direction, text);
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  button(name) {
    return this.root.querySelector(`[data-do="${name}"]`);
  }

  /** Do something when a button is pressed. What fails is said, not thrown. */
  on(name, act) {
    this.button(name).addEventListener("click", () => this.attempt(act));
  }

  async attempt(act) {
    try {
      await act();
    } catch (error) {
      this.say(error.message, true);
    }
    page.render();
    keepFocus();
  }

  say(text, isBad = false) {
    this.part("say").textContent = text;
    this.part("say").dataset.bad = isBad ? "yes" : "no";
  }

  /** Rebuild a list; the focus stays on what has the same key. */
  list(name, rows) {
    const key = document.activeElement?.getAttribute("data-key");
    this.part(name).replaceChildren(...rows);
    if (key && !document.activeElement?.getAttribute("data-key"))
      this.part(name).querySelector(`[data-key="${key}"]`)?.focus();
  }
}
