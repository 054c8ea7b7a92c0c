"use strict";
// What is shown of strangers is put in as text alone, with everything that cannot
// be seen escaped; the page's policy would have markup refused as well.

const part = (id) => document.getElementById(id);
// Beyond these the page would be slow, not fuller.
const MOST_ROWS = 500;
const MOST_EVENTS = 200;

const devices = new Map();
const rows = new Map();
let events = [];
let may = { twins: false };
let chosen = null;
let hub = null;
let twin = null;
let shownTwin = {};
let renderAsked = false;
let offeredMethods = "";

/** Text of strangers: what could pose as something else is written as its number. */
function plain(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (sign) =>
    sign === "\n" ? sign : `\\u{${sign.codePointAt(0).toString(16)}}`);
}

/** As `plain`, in one line. */
const line = (text) => plain(text).replaceAll("\n", "\\n");

/** JSON whose numbers stay as they were written, where the browser can do that. */
function parse(text) {
  const exact = typeof JSON.rawJSON === "function";
  return JSON.parse(text, (_, value, context) =>
    exact && typeof value === "number" && context?.source ? JSON.rawJSON(context.source) : value);
}

/** A value in a sentence; `parse` makes numbers objects, which are no text by themselves. */
const word = (value) => line(JSON.stringify(value));

const pretty = (value) => plain(JSON.stringify(value, null, 2));

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function say(text, bad = false) {
  part("state").textContent = text;
  part("state").className = bad ? "bad" : "";
}

function clock(time) {
  const at = new Date(time);
  return Number.isNaN(at.getTime()) ? "" : at.toLocaleTimeString([], { hour12: false });
}

// Devices

function render() {
  if (renderAsked) return;
  renderAsked = true;
  // A page in the background gets no animation frames, and shows nothing to anyone.
  requestAnimationFrame(() => {
    renderAsked = false;
    renderDevices();
  });
}

function renderDevices() {
  const wanted = part("filter").value.trim().toLowerCase();
  const ids = [...devices.keys()].filter((id) => id.toLowerCase().includes(wanted));
  // A device stands before its modules.
  const key = (id) => id.replace("/", "\u0000");
  ids.sort((a, b) => (key(a) < key(b) ? -1 : 1));
  const body = part("devices");
  let next = body.firstElementChild;
  const shown = ids.slice(0, MOST_ROWS);
  for (const id of shown) {
    const row = rows.get(id) ?? newRow(id);
    fill(row, devices.get(id));
    // Rows that stay where they are keep the focus.
    if (row === next) next = next.nextElementSibling;
    else body.insertBefore(row, next);
  }
  while (next) {
    const gone = next;
    next = next.nextElementSibling;
    rows.delete(gone.dataset.id);
    gone.remove();
  }
  const connected = [...devices.values()].filter((one) => one.connected).length;
  part("count").textContent = `(${devices.size}, ${connected} connected)`;
  part("more").textContent = ids.length > shown.length
    ? `${ids.length - shown.length} more: type a part of an id above.`
    : ids.length === 0 ? (devices.size === 0 ? "There is none." : "None has that in its id.") : "";
}

function newRow(id) {
  const row = element("tr");
  row.dataset.id = id;
  const button = element("button", line(id));
  button.type = "button";
  button.addEventListener("click", () => { location.hash = `/${encodeURIComponent(id)}`; });
  const head = element("td");
  head.append(button);
  row.append(head, element("td"), element("td"));
  rows.set(id, row);
  return row;
}

function fill(row, device) {
  const [head, state, since] = row.children;
  head.firstChild.setAttribute("aria-current", String(device.id === chosen));
  const words = device.status === "disabled" ? "disabled" : device.connected ? "connected" : "not connected";
  if (state.textContent !== words) state.textContent = words;
  state.className = device.connected ? "connected" : "";
  const time = device.changed ? clock(device.changed) : "–";
  if (since.textContent !== time) since.textContent = time;
}

function take(changed) {
  for (const device of changed) {
    if (device.gone) devices.delete(device.id);
    else devices.set(device.id, device);
  }
  render();
  if (chosen !== null && !may.twins) showIdentity();
}

// Twins

function choose() {
  // Other anchors are places of this page, such as the one to skip to.
  if (location.hash && !location.hash.startsWith("#/")) return;
  let id = null;
  try {
    id = decodeURIComponent(location.hash.slice(2)) || null;
  } catch {
    // Somebody has typed what is no id.
  }
  if (id === chosen) return;
  chosen = id;
  twin?.close();
  twin = null;
  shownTwin = {};
  part("twin").hidden = true;
  part("call").hidden = true;
  part("answer").textContent = "";
  part("twin-state").textContent = "";
  part("detail-title").textContent = id === null ? "No device chosen" : line(id);
  render();
  renderEvents();
  if (id === null) return;
  if (may.twins) watchTwin(id);
  else showIdentity();
}

const pathOf = (id) => {
  const [device, module] = id.split("/");
  const of = `/emulator/glass/twins/${encodeURIComponent(device)}`;
  return module === undefined ? of : `${of}/modules/${encodeURIComponent(module)}`;
};

function showIdentity() {
  const device = devices.get(chosen);
  part("twin-state").textContent = device
    ? `Status ${device.status}. The policy ${line(may.policy)} sees no twins, no events and no calls.`
    : "There is no such device.";
}

function watchTwin(id) {
  const source = new EventSource(pathOf(id));
  twin = source;
  twin.addEventListener("twin", (message) => showTwin(parse(message.data)));
  twin.addEventListener("gone", () => {
    source.close();
    part("twin").hidden = true;
    part("call").hidden = true;
    part("twin-state").textContent = "There is no such device (any more).";
  });
  twin.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) part("twin-state").textContent = "The hub does not show this twin.";
  });
}

function showTwin(document) {
  const { desired, reported } = document.properties;
  const version = (section) => {
    const { $version, $metadata, ...rest } = section;
    return rest;
  };
  show("tags", document.tags ?? {});
  show("desired", version(desired));
  show("reported", version(reported));
  show("configurations", document.configurations ?? {});
  const model = document.modelId ? `, model ${line(document.modelId)}` : "";
  part("twin-state").textContent = `${document.connectionState}, ${document.status}${model}. ` +
    `Desired version ${word(desired.$version)}, reported ${word(reported.$version)}; seen ${clock(Date.now())}.`;
  part("twin").hidden = false;
  part("call").hidden = false;
  const methods = document.properties.reported.agent?.methods;
  const offered = JSON.stringify(Array.isArray(methods) ? methods : []);
  if (offered !== offeredMethods) {
    offeredMethods = offered;
    part("methods").replaceChildren(...JSON.parse(offered).map((name) => {
      const option = element("option");
      option.value = line(name);
      return option;
    }));
  }
}

/** Shows a section, with the lines marked that it did not have before. */
function show(id, value) {
  const text = pretty(value);
  const before = shownTwin[id];
  if (text === before) return;
  // A line that has got a neighbour, and so a comma, is no new one; a bracket never is.
  const bare = (words) => words.replace(/,$/, "");
  const old = before === undefined ? null : new Set(before.split("\n").map(bare));
  const isNew = (words) => old !== null && !old.has(bare(words)) && /[^\s{}[\],]/.test(words);
  part(id).replaceChildren(...text.split("\n").map((words) =>
    element("span", `${words}\n`, isNew(words) ? "new" : "")));
  shownTwin[id] = text;
}

// Calls

part("call").addEventListener("submit", async (event) => {
  event.preventDefault();
  const id = chosen;
  const payload = part("payload").value.trim();
  const error = part("payload-error");
  error.textContent = "";
  part("payload").removeAttribute("aria-invalid");
  if (payload) {
    try {
      JSON.parse(payload);
    } catch (problem) {
      error.textContent = `The payload is not JSON: ${plain(problem.message)}`;
      part("payload").setAttribute("aria-invalid", "true");
      part("payload").focus();
      return;
    }
  }
  const fields = [
    `"methodName":${JSON.stringify(part("method").value)}`,
    `"responseTimeoutInSeconds":${Number(part("timeout").value)}`,
  ];
  // As it was typed, with numbers that JavaScript would round.
  if (payload) fields.push(`"payload":${payload}`);
  part("send").disabled = true;
  part("answer").textContent = "Waiting for the device …";
  const began = performance.now();
  let answer;
  try {
    const response = await fetch(`${pathOf(id)}/methods`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: `{${fields.join(",")}}`,
    });
    answer = told(response.status, await response.text(), Math.round(performance.now() - began));
  } catch {
    answer = "The hub cannot be reached.";
  }
  part("send").disabled = false;
  if (id === chosen) part("answer").textContent = answer;
});

function told(status, text, took) {
  try {
    const body = parse(text);
    if (status === 200) return `Status ${word(body.status)}, after ${took} ms\n${pretty(body.payload)}`;
    let message = body.Message ?? body.message ?? text;
    try {
      message = JSON.parse(message).message ?? message;
    } catch {
      // Not all messages are JSON once more.
    }
    return `The hub refused with ${status}: ${plain(message)}`;
  } catch {
    return `The hub answered ${status}: ${plain(text)}`;
  }
}

// Events

const nameOf = (event) => (event.moduleId ? `${event.deviceId}/${event.moduleId}` : event.deviceId);

function entry(event) {
  const item = element("li");
  const kind = event.systemProperties?.["iothub-message-source"] ?? "telemetry";
  const operation = event.properties?.opType;
  const names = { twinChangeEvents: "twin", deviceLifecycleEvents: "identity", deviceConnectionStateEvents: "connection" };
  const words = operation && names[kind] ? `${names[kind]}: ${operation}` : kind;
  item.append(element("time", clock(event.enqueuedTime)), ` ${line(nameOf(event))} ${line(words)}\n`);
  // Of an identity or a connection, the operation says it all.
  const says = names[kind] === undefined || kind === "twinChangeEvents";
  const body = says ? event.body ?? event.bodyBase64 ?? "" : "";
  const rest = names[kind] ? {} : event.properties ?? {};
  item.append(plain(typeof body === "string" ? body : JSON.stringify(body)));
  if (Object.keys(rest).length > 0) item.append(`\n${plain(JSON.stringify(rest))}`);
  return item;
}

const isWanted = (event) => !part("only").checked || chosen === null || nameOf(event) === chosen;

function addEvents(news) {
  for (const event of news) {
    events.unshift(event);
    if (isWanted(event)) part("event-list").prepend(entry(event));
  }
  events = events.slice(0, MOST_EVENTS);
  while (part("event-list").childElementCount > MOST_EVENTS) part("event-list").lastElementChild.remove();
  part("no-events").hidden = part("event-list").childElementCount > 0;
}

function renderEvents() {
  part("event-list").replaceChildren(...events.filter(isWanted).map(entry));
  part("no-events").hidden = part("event-list").childElementCount > 0;
}

// The connection

function open() {
  const source = new EventSource("/emulator/glass/stream");
  hub = source;
  hub.addEventListener("hello", (message) => {
    may = JSON.parse(message.data);
    part("hub").textContent = `${line(may.hub)}, as ${line(may.policy)}`;
    part("events").hidden = !may.twins;
    say("Live.");
  });
  hub.addEventListener("devices", (message) => {
    devices.clear();
    take(JSON.parse(message.data));
    choose();
  });
  hub.addEventListener("changed", (message) => take(JSON.parse(message.data)));
  hub.addEventListener("recent", (message) => {
    events = [];
    renderEvents();
    addEvents(message.data.split("\n").filter(Boolean).map(parse));
  });
  hub.addEventListener("event", (message) => addEvents([parse(message.data)]));
  hub.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) {
      say("This visit has ended. A new link comes from: iotdm-emulator browse", true);
    } else {
      say("The hub has gone; trying again …", true);
    }
  });
}

function close() {
  hub?.close();
  twin?.close();
  hub = twin = null;
}

// A browser holds few connections to one host, and pages that nobody sees give
// theirs back.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    close();
  } else if (hub === null) {
    open();
    if (chosen !== null && may.twins) watchTwin(chosen);
  }
});
window.addEventListener("hashchange", choose);
part("filter").addEventListener("input", render);
part("only").addEventListener("change", renderEvents);
// The link has done its work: it stays neither in the history nor in a bookmark.
if (location.search) history.replaceState(null, "", `/${location.hash}`);
if (!document.hidden) open();
