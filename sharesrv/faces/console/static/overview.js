// Draws the samples of the last 15 minutes, and holds the stream that htmx follows while "Pause" is pressed.
"use strict";
(() => {
  const WINDOW_S = 15 * 60, HEIGHT = 160;
  const DASHES = [[], [8, 4], [2, 3]];
  const stream = document.getElementById("stream");
  const url = stream.getAttribute("hx-sse:connect");
  const button = document.getElementById("pause");
  let columns = { at_ms: [] };
  let connected = false;
  let paused = matchMedia("(prefers-reduced-motion: reduce)").matches; // plots that move are for those who ask for them

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const muted = () => color("--pico-muted-color");
  const grid = { stroke: () => color("--pico-muted-border-color"), width: 1 };
  const clock = (second) => new Date(second * 1000).toISOString().slice(11, 16);

  function say(text) {
    document.getElementById("connection").textContent = text;
  }

  function window_s() {
    const last_s = (columns.at_ms.at(-1) ?? Date.now()) / 1000;
    return [last_s - WINDOW_S, last_s];
  }

  // Where little happens, a value may have none beside it to be joined with by a line.
  function lonely(plot, series) {
    const values = plot.data[series];
    return values.flatMap((value, at) => (value != null && values[at - 1] == null && values[at + 1] == null ? [at] : []));
  }

  function made(box) {
    const keys = box.dataset.keys.split(" ");
    const unit = box.dataset.unit === "ms" ? " ms" : box.dataset.unit;
    const plot = new uPlot({
      width: box.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { range: window_s }, y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [
        { stroke: muted, grid, ticks: grid, values: (_plot, seconds) => seconds.map(clock) },
        { stroke: muted, grid, ticks: grid, size: 64, values: (_plot, found) => found.map((each) => each + unit) },
      ],
      series: [{}, ...keys.map((_key, at) => {
        const stroke = () => color(`--plot-${at + 1}`);
        return { stroke, width: 2, dash: DASHES[at % 3], points: { show: true, filter: lonely, size: 4, stroke, fill: stroke } };
      })],
    }, undefined, box);
    new ResizeObserver(() => plot.setSize({ width: box.clientWidth, height: HEIGHT })).observe(box);
    return { draw: () => plot.setData([columns.at_ms.map((ms) => ms / 1000), ...keys.map((key) => columns[key] ?? [])]), plot };
  }

  const plots = [...document.querySelectorAll(".plot")].map(made);

  function show(found) {
    columns = found;
    plots.forEach((each) => each.draw());
  }

  function add(sample) {
    if (sample.at_ms <= (columns.at_ms.at(-1) ?? 0)) return; // the history has it
    const first_ms = sample.at_ms - WINDOW_S * 1000;
    const gone = columns.at_ms.findIndex((ms) => ms >= first_ms);
    for (const [key, value] of Object.entries(sample)) {
      columns[key] = [...(columns[key] ?? []).slice(gone < 0 ? Infinity : gone), value];
    }
    show(columns);
  }

  function follow() {
    if (!connected && !paused) htmx.ajax("GET", url, { source: stream });
  }

  function pause(wanted) {
    paused = wanted;
    button.setAttribute("aria-pressed", String(paused));
    if (paused) say("Paused.");
    else if (connected) say("Live.");
    follow();
  }

  const on = (event, call) => stream.addEventListener(event, call);
  on("history", (event) => show(JSON.parse(event.detail.data)));
  on("sample", (event) => add(JSON.parse(event.detail.data)));
  on("htmx:sse:before:connection", (event) => paused && event.preventDefault());
  on("htmx:sse:after:connection", () => {
    connected = true;
    say("Live.");
  });
  on("htmx:sse:before:message", (event) => {
    if (!paused) return;
    event.preventDefault();
    event.detail.connection.reader?.cancel(); // a page that stands still costs the server nothing
  });
  on("htmx:sse:close", () => {
    connected = false;
    follow();
  });
  on("htmx:sse:error", (event) => {
    if (event.detail.status === 401) location.reload(); // to the sign-in
    else say("The server cannot be reached. Trying again.");
  });

  button.hidden = false;
  button.addEventListener("click", () => pause(!paused));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((each) => each.plot.redraw()));
  fetch(url.replace("stream", "samples")).then((answer) => answer.json()).then((found) => columns.at_ms.length || show(found), () => {});
  pause(paused);
})();
