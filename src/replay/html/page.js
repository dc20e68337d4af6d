
"use strict";
// Shows the data blocks of this page. Whatever comes from the log becomes text nodes, and nothing else.

const SLICE_MS = 8;
const ROW_CHARACTERS_MAX = 300;
const LIST_PX_MAX = 6000000;
const NAMES_MAX = 2000;
const LANES = ["private", "group", "login", "failed", "blocked", "other"];
const KIND_LANES = { message: "private", group_message: "group", login_failed: "failed", user_blocked: "blocked" };
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const MINUTE_MS = 60000, HOUR_MS = 60 * MINUTE_MS, DAY_MS = 24 * HOUR_MS;
const SETS = [
  ["Messages", ["message", "group_message"]],
  ["Logins and logouts", ["login", "logout"]],
  ["Failed logins and blocks", ["login_failed", "user_blocked"]],
  ["Changes of groups", ["group_created", "group_invited", "group_joined", "group_left"]],
  ["Transfers", ["transfer_offered", "transfer_answered", "transfer_ended"]],
];

const byId = (id) => document.getElementById(id);
const about = JSON.parse(document.querySelector("script.about").textContent);
const number = new Intl.NumberFormat("en");
const count = (n, one, many) => `${number.format(n)} ${n === 1 ? one : many}`;
const kindWords = (kind) => {
  const words = kind.replace(/_/g, " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
};

// --- Text and time ---

// Controls, marks and overrides of direction, separators of lines, and spaces without width: they show as what they are.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  return made;
}

function putVisible(parent, text, keepsLines) {
  let done = 0;
  for (const found of text.matchAll(HIDDEN)) {
    const character = found[0];
    if (keepsLines && (character === "\n" || character === "\t")) continue;
    parent.append(text.slice(done, found.index));
    const code = character === "\n" ? "↵" : "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0");
    parent.append(element("span", "control", code));
    done = found.index + 1;
  }
  parent.append(text.slice(done));
}

function isolated(text) {
  const made = element("bdi");
  putVisible(made, text, false);
  return made;
}

const two = (n) => String(n).padStart(2, "0");
const dayWords = (date) => `${two(date.getDate())} ${MONTHS[date.getMonth()]} ${date.getFullYear()}`;
const clockWords = (date) => `${two(date.getHours())}:${two(date.getMinutes())}`;
const timeWords = (date) => `${dayWords(date)} ${clockWords(date)}:${two(date.getSeconds())}`;
const utcWords = (date) => `${date.toISOString().replace("T", " ").replace("Z", "")} UTC`;

function timeOf(ms) {
  const date = new Date(ms);
  const made = element("time", "", timeWords(date));
  made.dateTime = date.toISOString();
  made.title = utcWords(date);
  return made;
}

// --- What the log adds up to ---

function showAbout() {
  const source = byId("source");
  source.append(isolated(about.source));
  if (about.first) source.append(", ", timeOf(about.first[1]), " to ", timeOf(about.last[1]));
  if (about.conditions.length) {
    byId("chosen").hidden = false;
    byId("chosen").append("Only: ");
    about.conditions.forEach((words, place) => byId("chosen").append(place ? ", " : "", isolated(words)));
  }
  const types = new Map(about.types);
  const sum = (...kinds) => kinds.reduce((all, kind) => all + (types.get(kind) || 0), 0);
  const users = number.format(about.users.names) + (about.users.is_cut ? "+" : "");
  const tiles = [
    [number.format(about.events), "events"], [number.format(sum("message")), "private messages"],
    [number.format(sum("group_message")), "group messages"], [users, "active users"],
    [number.format(sum("login")), "logins"],
    [`${number.format(sum("login_failed"))} / ${number.format(sum("user_blocked"))}`, "failed logins / blocks"],
  ];
  for (const [figure, words] of tiles) {
    const tile = element("div", "tile");
    tile.append(element("b", "", figure), element("span", "", words));
    byId("tiles").append(tile);
  }
  showRanking("users", "user", about.users);
  showRanking("groups", "group", about.groups);
  byId("made").textContent = `Written by messenger ${about.version}. This page is complete and asks nothing of any network.`;
  if (about.held < about.events) {
    byId("held").hidden = false;
    byId("held").textContent = `The timeline holds the newest ${number.format(about.held)} of `
      + `${number.format(about.events)} events; the figures above are of all.`;
  }
}

function showRanking(id, field, ranking) {
  const list = byId(id);
  const most = ranking.most.length ? ranking.most[0][1] : 0;
  for (const [name, events] of ranking.most) {
    const button = element("button");
    button.type = "button";
    button.title = `Show the events of this ${field}`;
    const bar = drawn("svg", { "aria-hidden": "true" });
    bar.append(drawn("rect", { class: field === "group" ? "group" : "private", width: `${100 * events / most}%`, height: "100%", rx: 2 }));
    button.append(isolated(name), bar, element("b", "", number.format(events)));
    button.addEventListener("click", () => choose(field, name));
    const item = element("li");
    item.append(button);
    list.append(item);
  }
  const more = ranking.names - ranking.most.length;
  if (more > 0 || ranking.is_cut) {
    list.after(element("p", "help", `and ${ranking.is_cut ? "more than " : ""}${number.format(more)} more`));
  }
  if (!most) list.append(element("p", "", `No event ${field === "group" ? "of a group" : "by a user"}.`));
}

const WIDTHS = [
  [MINUTE_MS, "a minute"], [5 * MINUTE_MS, "each 5 minutes"], [15 * MINUTE_MS, "each 15 minutes"], [HOUR_MS, "an hour"],
  [3 * HOUR_MS, "each 3 hours"], [6 * HOUR_MS, "each 6 hours"], [DAY_MS, "a day"], [7 * DAY_MS, "each 7 days"],
  [28 * DAY_MS, "each 28 days"], [364 * DAY_MS, "each 52 weeks"], [3640 * DAY_MS, "each 520 weeks"],
];

// The moments of the log put together to as many bars as fit: each its beginning and its counts by lane.
function bars(barsMax) {
  const { activity, width_ms: narrow } = about;
  if (!activity.length) return { bars: [], words: "", width: 0 };
  const local = (moment) => {
    const ms = moment * narrow;
    return narrow >= DAY_MS ? ms : ms - new Date(ms).getTimezoneOffset() * MINUTE_MS;
  };
  const first = local(activity[0][0]), last = local(activity[activity.length - 1][0]);
  const fits = ([width]) => width >= narrow && Math.floor(last / width) - Math.floor(first / width) < barsMax;
  const [width, words] = WIDTHS.find(fits) || WIDTHS[WIDTHS.length - 1];
  const begin = Math.floor(first / width);
  const made = Array.from({ length: Math.floor(last / width) - begin + 1 }, () => null);
  for (const [moment, counts] of activity) {
    const place = Math.floor(local(moment) / width) - begin;
    const bar = made[place] || (made[place] = counts.map(() => 0));
    counts.forEach((n, lane) => { bar[lane] += n; });
  }
  return { bars: made, words, width, begin };
}

function barWords(bar) {
  const { width, begin, place } = bar;
  // Local time told as if it were UTC, so that days are days where the clock changes too.
  const date = new Date((begin + place) * width);
  const day = `${two(date.getUTCDate())} ${MONTHS[date.getUTCMonth()]} ${date.getUTCFullYear()}`;
  return width >= DAY_MS ? day : `${day} ${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`;
}

function showChart(id, series) {
  const box = byId(id);
  const px = { width: box.clientWidth, height: box.clientHeight };
  const { bars: made, words, width, begin } = bars(Math.max(12, Math.floor(px.width / 9)));
  byId(`${id}-unit`).textContent = words && `– events ${words}`;
  box.replaceChildren();
  byId(`${id}-axis`).replaceChildren();
  const height = (bar) => (bar ? series.reduce((sum, [lane]) => sum + bar[LANES.indexOf(lane)], 0) : 0);
  const most = Math.max(0, ...made.map(height));
  const svg = drawn("svg", { role: "img", viewBox: `0 0 ${px.width} ${px.height}` });
  svg.setAttribute("aria-label", `${series.map(([, name]) => name).join(", ")}: at most ${number.format(most)} ${words}`);
  box.append(svg);
  if (!most) {
    const none = drawn("text", { x: px.width / 2, y: px.height / 2, "text-anchor": "middle" });
    none.textContent = "None.";
    svg.append(none);
    return;
  }
  const room = px.height - 20, step = Math.min(48, px.width / made.length), gap = step > 5 ? Math.min(4, step * .2) : 0;
  svg.append(drawn("line", { class: "level", x1: 0, x2: px.width, y1: px.height - room, y2: px.height - room }));
  const top = drawn("text", { x: 0, y: px.height - room - 6 });
  top.textContent = number.format(most);
  svg.append(top);
  made.forEach((bar, place) => {
    if (!bar) return;
    const group = drawn("g", {}), x = place * step;
    const title = drawn("title", {});
    title.textContent = `${barWords({ width, begin, place })}\n`
      + series.map(([lane, name]) => `${name}: ${number.format(bar[LANES.indexOf(lane)])}`).join("\n");
    group.append(title, drawn("rect", { class: "hit", x, y: 0, width: step, height: px.height }));
    let y = px.height;
    for (const [lane] of series) {
      const tall = bar[LANES.indexOf(lane)] / most * room;
      if (!tall) continue;
      y -= tall;
      group.append(drawn("rect", { class: lane, x: x + gap / 2, y, width: Math.max(1, step - gap), height: tall }));
    }
    svg.append(group);
  });
  const edges = made.length > 1 ? [0, made.length - 1] : [0];
  byId(`${id}-axis`).append(...edges.map((place) => element("span", "", barWords({ width, begin, place }))));
}

const CHARTS = [
  ["activity", [["private", "Private messages"], ["group", "Group messages"], ["other", "Other events"]]],
  ["logins", [["login", "Logins"], ["failed", "Failed logins"], ["blocked", "Blocks"]]],
];

function showLegend(id, series) {
  for (const [lane, name] of series) {
    const item = element("li"), key = drawn("svg", { "aria-hidden": "true", viewBox: "0 0 10 10" });
    key.append(drawn("rect", { class: lane, width: 10, height: 10, rx: 2 }));
    item.append(key, name);
    byId(`${id}-legend`).append(item);
  }
}

// --- The events ---

const events = { seq: [], ms: [], kind: [], users: [], group: [], text: [], search: [] };
const names = { place: new Map(), all: [], asUser: [], asGroup: [] };
let shown = { places: new Uint32Array(0), count: 0, isNewestFirst: true };
let run = 0;

// Lets the browser do what waits, and goes on: at once, where nothing does.
const channel = new MessageChannel(), paused = [];
channel.port1.onmessage = () => paused.shift()();
const pause = () => new Promise((resolve) => {
  paused.push(resolve);
  channel.port2.postMessage(null);
});

function nameOf(name) {
  let place = names.place.get(name);
  if (place === undefined) {
    place = names.all.push(name) - 1;
    names.place.set(name, place);
    names.asUser.push(0);
    names.asGroup.push(0);
  }
  return place;
}

async function readEvents() {
  let since = performance.now();
  for (const block of document.querySelectorAll("script.events")) {
    const { names: own, events: rows } = JSON.parse(block.textContent);
    block.remove();
    const places = own.map(nameOf);
    let seq = 0, ms = 0;
    for (const [seqStep, msStep, kind, users, group, text] of rows) {
      seq += seqStep;
      ms += msStep;
      const all = users.map((user) => places[user]);
      all.forEach((user) => { names.asUser[user] += 1; });
      if (group >= 0) names.asGroup[places[group]] += 1;
      events.seq.push(seq);
      events.ms.push(ms);
      events.kind.push(kind);
      events.users.push(all);
      events.group.push(group >= 0 ? places[group] : -1);
      events.text.push(text);
      events.search.push(null);
    }
    if (performance.now() - since > SLICE_MS) {
      await pause();
      since = performance.now();
    }
  }
}

function fillChoices(field, counts) {
  const select = byId("filters").elements[field];
  const chosen = counts.map((n, place) => [n, place]).filter(([n]) => n > 0);
  chosen.sort(([a], [b]) => b - a);
  const kept = chosen.slice(0, NAMES_MAX).map(([, place]) => names.all[place]).sort();
  select.append(...kept.map((name) => option(name, name)));
}

function option(value, words) {
  const made = element("option");
  made.value = value;
  putVisible(made, words.length > 60 ? words.slice(0, 60) + "…" : words, false);
  return made;
}

function fillTypes() {
  const select = byId("filters").elements.type;
  const there = new Set(about.types.map(([kind]) => kind));
  const sets = element("optgroup"), single = element("optgroup");
  sets.label = "Several";
  single.label = "One";
  for (const [words, kinds] of SETS) {
    if (kinds.some((kind) => there.has(kind))) sets.append(option(kinds.join(" "), words));
  }
  single.append(...about.kinds.filter((kind) => there.has(kind)).map((kind) => option(kind, kindWords(kind))));
  if (there.size) select.append(sets, single);
}

// The name may not be among those that the list of choices holds.
function choose(field, value) {
  const form = byId("filters"), select = form.elements[field];
  if (![...select.options].some((known) => known.value === value)) select.append(option(value, value));
  select.value = value;
  filter();
  byId("timeline").scrollIntoView();
  byId("list").focus({ preventScroll: true });
}

// --- Which of them ---

function searchText(place) {
  let text = events.search[place];
  if (text === null) {
    text = events.text[place];
    if (isMessage(place)) {
      text = `${events.users[place].map((user) => names.all[user]).join(" ")} ${text}`;
      if (events.group[place] >= 0) text = `${names.all[events.group[place]]} ${text}`;
    }
    text = text.toLowerCase();
    events.search[place] = text;
  }
  return text;
}

// The first place whose moment is not before `ms`; moments rise.
function placeOf(ms) {
  let low = 0, high = events.ms.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (events.ms[middle] < ms) low = middle + 1; else high = middle;
  }
  return low;
}

// The first moment of a day where the viewer is, or of the one after it.
function dayMs(value, isAfter) {
  const [year, month, day] = value.split("-").map(Number);
  const date = new Date(2000, 0, 1);
  date.setFullYear(year, month - 1, day + (isAfter ? 1 : 0));
  return date.getTime();
}

function wanted() {
  const { text, user, group, type, since, until, order } = byId("filters").elements;
  const place = (name) => (name === "" ? null : names.place.has(name) ? names.place.get(name) : -2);
  return {
    text: text.value.toLowerCase(), user: place(user.value), group: place(group.value),
    kinds: type.value === "" ? null : new Set(type.value.split(" ").map((kind) => about.kinds.indexOf(kind))),
    from: since.value ? placeOf(dayMs(since.value, false)) : 0,
    to: until.value ? placeOf(dayMs(until.value, true)) : events.ms.length,
    isNewestFirst: order.value === "newest",
  };
}

function holds(want, place) {
  return (want.kinds === null || want.kinds.has(events.kind[place]))
    && (want.group === null || events.group[place] === want.group)
    && (want.user === null || events.users[place].includes(want.user))
    && (want.text === "" || searchText(place).includes(want.text));
}

// Goes through the events in slices, so that what is typed meanwhile is seen at once; a later run ends this one.
async function filter() {
  const own = ++run;
  // The browser may tell of many keys in one task: only the last one is worth a run.
  await pause();
  if (own !== run) return;
  const want = wanted();
  const places = new Uint32Array(Math.max(0, want.to - want.from));
  let found = 0, since = performance.now();
  for (let place = want.from; place < want.to; place += 1) {
    if (holds(want, place)) places[found++] = place;
    if (place % 128 === 0 && performance.now() - since > SLICE_MS) {
      await pause();
      if (own !== run) return;
      since = performance.now();
    }
  }
  shown = { places, count: found, isNewestFirst: want.isNewestFirst };
  active = -1;
  byId("list").scrollTop = 0;
  const all = events.ms.length;
  byId("count").textContent = found === all ? count(all, "event", "events") : `${number.format(found)} of ${count(all, "event", "events")}`;
  byId("empty").hidden = found > 0;
  byId("empty").textContent = about.events === 0 ? "The log has no such event." : "No event matches. Clear a filter to see more.";
  showRows();
  document.documentElement.dataset.run = own;
}

// --- The list, of which only what is seen exists ---

const rows = new Map();
const idle = [];
let rowPx = 40, active = -1;

const at = (place) => shown.places[shown.isNewestFirst ? shown.count - 1 - place : place];
const messages = ["message", "group_message"].map((kind) => about.kinds.indexOf(kind));
const isMessage = (place) => messages.includes(events.kind[place]);

function geometry() {
  const list = byId("list"), whole = shown.count * rowPx, view = list.clientHeight;
  const px = Math.min(whole, LIST_PX_MAX);
  // No browser scrolls as far as some lists are long; then a step of the bar is more than one of the rows.
  const scale = whole > px ? (whole - view) / (px - view) : 1;
  return { list, view, px, scale };
}

function showRows() {
  const { list, view, px, scale } = geometry();
  byId("space").style.height = `${px}px`;
  // Read once: to ask between changes would lay the page out again for each row.
  const top = list.scrollTop, offset = top * scale;
  const first = Math.max(0, Math.floor(offset / rowPx) - 4);
  const last = Math.min(shown.count, Math.ceil((offset + view) / rowPx) + 4);
  for (const [place, row] of rows) {
    if (place < first || place >= last || row.event !== at(place)) {
      rows.delete(place);
      idle.push(row);
      row.node.hidden = true;
    }
  }
  for (let place = first; place < last; place += 1) {
    let row = rows.get(place);
    if (!row) {
      row = idle.pop() || newRow();
      fillRow(row, place);
      rows.set(place, row);
    }
    row.node.style.transform = `translateY(${top + place * rowPx - offset}px)`;
    row.node.classList.toggle("active", place === active);
    row.node.setAttribute("aria-selected", place === active);
  }
  const marked = rows.get(active);
  if (marked) list.setAttribute("aria-activedescendant", marked.node.id); else list.removeAttribute("aria-activedescendant");
}

let rowsMade = 0;
function newRow() {
  const node = element("div", "row");
  node.id = `row-${++rowsMade}`;
  node.setAttribute("role", "option");
  byId("list").append(node);
  const row = { node, event: -1, place: -1 };
  node.addEventListener("click", () => { setActive(row.place); showDetail(row.event); });
  return row;
}

function fillRow(row, place) {
  const event = at(place);
  row.event = event;
  row.place = place;
  const { node } = row, name = about.kinds[events.kind[event]];
  const kind = element("span", "kind"), dot = drawn("svg", { class: "dot", viewBox: "0 0 8 8", "aria-hidden": "true" });
  dot.append(drawn("circle", { class: KIND_LANES[name] || "other", cx: 4, cy: 4, r: 4 }));
  kind.append(dot, kindWords(name));
  const text = element("span", "text");
  let told = events.text[event];
  if (isMessage(event)) {
    const [from, to] = events.users[event].map((user) => names.all[user]);
    const group = events.group[event] >= 0 ? names.all[events.group[event]] : null;
    const who = element("b");
    who.append(isolated(from), group === null ? " to " : " in ", isolated(group === null ? to : group));
    text.append(who, ": ");
  }
  if (told.length > ROW_CHARACTERS_MAX) told = told.slice(0, ROW_CHARACTERS_MAX).replace(/[\ud800-\udbff]$/, "") + "…";
  text.append(isolated(told));
  node.hidden = false;
  node.setAttribute("aria-posinset", place + 1);
  node.setAttribute("aria-setsize", shown.count);
  node.replaceChildren(timeOf(events.ms[event]), kind, text);
}

function setActive(place) {
  active = Math.max(0, Math.min(shown.count - 1, place));
  const { list, view, scale } = geometry();
  const offset = list.scrollTop * scale, top = active * rowPx;
  if (top < offset) list.scrollTop = Math.floor(top / scale);
  else if (top + rowPx > offset + view) list.scrollTop = Math.ceil((top + rowPx - view) / scale);
  showRows();
}

function onKey(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || !shown.count) return;
  const page = Math.max(1, Math.floor(byId("list").clientHeight / rowPx) - 1);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
  if (event.key in steps) setActive(active < 0 ? 0 : active + steps[event.key]);
  else if (event.key === "Home") setActive(0);
  else if (event.key === "End") setActive(shown.count - 1);
  else if ((event.key === "Enter" || event.key === " ") && active >= 0) showDetail(at(active));
  else return;
  event.preventDefault();
}

function showDetail(event) {
  const fields = byId("detail-fields"), text = byId("detail-text");
  const ms = events.ms[event], users = events.users[event], group = events.group[event];
  byId("detail-title").textContent = kindWords(about.kinds[events.kind[event]]);
  fields.replaceChildren();
  const put = (words, ...values) => {
    const value = element("dd");
    value.append(...values);
    fields.append(element("dt", "", words), value);
  };
  put("Event", number.format(events.seq[event]));
  put("Time here", timeOf(ms));
  put("UTC", utcWords(new Date(ms)));
  if (users.length) put("Users", ...users.flatMap((user, place) => [place ? ", " : "", isolated(names.all[user])]));
  if (group >= 0) put("Group", isolated(names.all[group]));
  text.replaceChildren();
  putVisible(text, events.text[event], true);
  byId("detail").showModal();
  text.scrollTop = 0;
}

// --- Together ---

function measure() {
  const probe = element("div", "row");
  byId("list").append(probe);
  rowPx = probe.offsetHeight || rowPx;
  probe.remove();
}

async function draw() {
  for (const [id, series] of CHARTS) {
    await pause();
    showChart(id, series);
  }
}

// Each step in a task of its own: together they would hold up a browser that still has to learn the page.
async function showFigures() {
  await pause();
  showAbout();
  CHARTS.forEach(([id, series]) => showLegend(id, series));
  fillTypes();
  await draw();
}

const figures = showFigures();

document.addEventListener("DOMContentLoaded", async () => {
  await figures;
  await readEvents();
  fillChoices("user", names.asUser);
  fillChoices("group", names.asGroup);
  measure();
  const form = byId("filters");
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", filter);
  byId("list").addEventListener("scroll", showRows, { passive: true });
  byId("list").addEventListener("keydown", onKey);
  let widthPx = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== widthPx) draw();
    widthPx = innerWidth;
    measure();
    showRows();
  });
  await filter();
  document.documentElement.dataset.ready = "yes";
});
