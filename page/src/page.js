// The page: follows its events and draws what they say. Texts from outside reach the document as text nodes only.
// A state of a cluster has `cluster`, and no values for what only a proxy counts.
"use strict";
{
  const WINDOW_MILLIS = 300_000; // of the chart
  const SILENCE_MILLIS = 5_000; // without a state, until the page says so
  const GRACE_MILLIS = 3_000; // for a stream that ends in order and is opened again
  const RETRY_MILLIS = 3_000; // after the stream was refused
  const HIDDEN_MILLIS = 300_000; // until a page that nobody sees leaves its place to another
  const SESSIONS_MILLIS = 2_000; // between two reads of the sessions
  const MOST_SESSIONS = 500; // rows
  const MOST_EVENTS = 100;

  const $ = (id) => document.getElementById(id);
  const count = new Intl.NumberFormat("en");
  const rate = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
  const clock = (millis) => new Date(millis).toLocaleTimeString("en-GB");

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  function say(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }
  function mark(node, text, look) {
    say(node, text);
    if (node.className !== look) node.className = look;
  }
  // Keeps nodes that are in place already, so that focus and selection stay.
  function arrange(parent, nodes, from = 0) {
    nodes.forEach((node, at) => {
      const present = parent.children[from + at];
      if (present !== node) parent.insertBefore(node, present ?? null);
    });
    while (parent.children.length > from + nodes.length) parent.lastElementChild.remove();
  }
  function bytes(value) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let at = 0;
    for (; value >= 1024 && at < units.length - 1; at += 1) value /= 1024;
    return `${at === 0 ? Math.round(value) : value.toFixed(value < 10 ? 1 : 0)} ${units[at]}`;
  }
  function age(seconds) {
    if (seconds < 60) return `${seconds} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
    return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  }
  const counted = (n, noun) => `${count.format(n)} ${noun}${n === 1 ? "" : "s"}`;
  const list = (counts) => Object.entries(counts).map(([reason, n]) => `${reason} ${count.format(n)}`).join(", ");

  // ---- Rates: from the counters of two states ----

  let last = null; // the state before
  let state = null;
  const server = () => (state?.cluster ? "The program" : "The proxy");
  const samples = []; // {at, up, down}, in bytes a second

  const key = (forward, listener) => `${forward.name}/${listener.name}`;
  function countsByListener(of) {
    const found = new Map();
    for (const forward of of?.forwards ?? []) {
      for (const listener of forward.listeners) found.set(key(forward, listener), listener.counts);
    }
    return found;
  }
  // Counters of a removed listener and of an earlier process are gone: no rate is negative.
  function perSecond(before, now, name) {
    const seconds = (state.at - (last?.at ?? state.at)) / 1000;
    return before && seconds > 0 ? Math.max(0, (now[name] - before[name]) / seconds) : 0;
  }

  // ---- Summary and chart ----

  function showSummary() {
    const { totals, listeners, version } = state;
    say($("version"), state.cluster ? state.cluster.place
      : version.epoch ? `configuration ${version.number} of ${version.epoch}` : "no configuration yet");
    const parts = [[listeners.failed, "failed"], [listeners.draining, "draining"]].filter(([n]) => n > 0);
    const sub = parts.map(([n, word]) => `${count.format(n)} ${word}`).join(", ");
    $("sum-listeners").replaceChildren(`${count.format(listeners.bound)} of ${count.format(listeners.all)} bound`);
    if (sub) $("sum-listeners").append(make("small", { class: listeners.failed ? "bad" : "warn" }, sub));
    say($("sum-live"), count.format(totals.live));
    // In a cluster, what was seen of sessions is less than what the proxies count.
    const opened = state.rates?.new ?? perSecond(last?.totals, totals, "opened");
    $("sum-new").replaceChildren(`${rate.format(opened)}/s`,
      make("small", { class: "soft" }, `${count.format(totals.opened)} ${state.rates ? "seen" : "in all"}`));
    if (totals.refused === null) $("sum-refused").replaceChildren("–", make("small", { class: "soft" }, "counted by the proxies"));
    else $("sum-refused").replaceChildren(`${rate.format(perSecond(last?.totals, totals, "refused"))}/s`,
      make("small", { class: "soft" }, `${count.format(totals.refused)} in all`));
    document.title = listeners.failed ? `(${listeners.failed} failed) Portlane` : "Portlane";
  }

  let noted = ""; // the notes in the document
  function showNotes() {
    const notes = state.cluster?.notes ?? [];
    $("json").hidden = Boolean(state.cluster);
    $("notes").hidden = notes.length === 0;
    if (noted === JSON.stringify(notes)) return;
    noted = JSON.stringify(notes);
    $("notes-list").replaceChildren(...notes.map((note) => make("li", {}, note)));
  }

  function showChart() {
    if (last && samples.at(-1)?.at !== state.at) {
      const [up, down] = ["up", "down"].map((name) => perSecond(last.totals, state.totals, name));
      samples.push({ at: state.at, up, down });
    }
    while (samples.length && samples[0].at < state.at - WINDOW_MILLIS) samples.shift();
    if (!samples.length) return;
    const most = Math.max(1024, ...samples.map(({ up, down }) => Math.max(up, down)));
    const x = (sample) => (300 - ((state.at - sample.at) * 300) / WINDOW_MILLIS).toFixed(1);
    const points = (name) => samples.map((sample) => `${x(sample)},${(62 - (sample[name] * 60) / most).toFixed(1)}`);
    $("chart-up").setAttribute("points", points("up").join(" "));
    $("chart-down").setAttribute("points",
      [`${x(samples[0])},64`, ...points("down"), `${x(samples.at(-1))},64`].join(" "));
    const now = samples.at(-1);
    const text = (name) => `${name} ${bytes(now[name])}/s, highest ${bytes(Math.max(...samples.map((it) => it[name])))}/s`;
    const keys = ["up", "down"].map((name) => make("span", {}, make("span", { class: `key ${name}` }), text(name)));
    const since = Math.round((now.at - samples[0].at) / 1000);
    const span = make("span", { class: "soft" }, `${age(since)} shown; up is from clients to backends`);
    if (state.rates) span.append(`; the proxies count ${bytes(state.rates.bytes)}/s`);
    $("chart-text").replaceChildren(...keys, span);
  }

  // ---- Forwards ----

  const groups = new Map(); // name of a forward: its nodes
  const LABELS = ["Address", "State", "Backends", "Sessions", "New/s", "Up", "Down"];

  function groupOf(name) {
    let group = groups.get(name);
    if (!group) {
      const heading = make("th", { class: "forward", scope: "rowgroup", colspan: "8", role: "rowheader" }, name);
      const row = make("tr", { role: "row" }, heading);
      group = { body: make("tbody", { role: "rowgroup" }, row), row, rows: new Map() };
      groups.set(name, group);
    }
    return group;
  }
  let ids = 0;
  function rowOf(group, listener) {
    let row = group.rows.get(listener.name);
    if (row) return row;
    const id = `detail-${(ids += 1)}`;
    const button = make("button", { type: "button", "aria-expanded": "false", "aria-controls": id }, listener.name);
    const cells = LABELS.map((label, at) => {
      const look = at > 2 ? "number" : "";
      return make("td", { role: "cell", class: look, "data-label": label }, make("span"));
    });
    const head = make("th", { scope: "row", role: "rowheader" }, button);
    const panel = make("td", { role: "cell", colspan: "8", class: "detail" });
    row = {
      main: make("tr", { role: "row" }, head, ...cells),
      detail: make("tr", { role: "row", id, hidden: "" }, panel),
      cells: cells.map((cell) => cell.firstElementChild), panel, shown: "", listener,
    };
    button.addEventListener("click", () => {
      row.detail.hidden = !row.detail.hidden;
      button.setAttribute("aria-expanded", String(!row.detail.hidden));
      showDetail(row);
    });
    group.rows.set(listener.name, row);
    return row;
  }

  const STATES = { Bound: "good", Draining: "warn", Failed: "bad" };
  const HEALTH = { All: "good", Some: "warn", None: "bad" };

  function endpointsOf(listener) {
    const sum = (name) => listener.backends.reduce((all, backend) => all + backend[name], 0);
    return [sum("healthy"), sum("endpoints")];
  }
  function showRow(row, listener, before) {
    row.listener = listener;
    const [address, status, backends, live, opened, up, down] = row.cells;
    const names = listener.hostnames.length ? ` for ${listener.hostnames.join(", ")}` : "";
    const ran = listener.address !== null; // a listener that never ran has no more to show
    say(address, ran ? listener.address + names : "–");
    mark(status, listener.failure ? `${listener.state}: ${listener.failure.reason}` : listener.state,
      STATES[listener.state] ?? "warn");
    const [healthy, all] = endpointsOf(listener);
    if (!ran) mark(backends, "–", "");
    // A cluster reports the health of all together.
    else if (listener.backends.some((it) => it.healthy === null)) {
      mark(backends, listener.health ? `${listener.health.toLowerCase()} healthy` : "not reported", HEALTH[listener.health] ?? "soft");
    } else if (all === 0) mark(backends, "no endpoint", "bad");
    else {
      // An agent without a connection counts as healthy in the report: the sessions that it has may resume.
      const look = HEALTH[listener.health] ?? "good";
      mark(backends, `${healthy} of ${all} healthy`, look === "good" && healthy < all ? "warn" : look);
    }
    const { counts } = listener;
    say(live, count.format(counts.live));
    say(opened, rate.format(perSecond(before, counts, "opened")));
    say(up, `${bytes(perSecond(before, counts, "up"))}/s`);
    say(down, `${bytes(perSecond(before, counts, "down"))}/s`);
    showDetail(row);
  }
  // Built again only if its content differs, so that a selection in it survives.
  function showDetail(row) {
    if (row.detail.hidden) return;
    const { failure, note, reached, looped, backends, counts, closed, dropped, refusedAddresses } = row.listener;
    const shown = JSON.stringify([failure, note, reached, looped, backends, counts, closed, dropped, refusedAddresses]);
    if (shown === row.shown) return;
    row.shown = shown;
    const line = (text, look = "") => make("p", { class: look }, text);
    const nodes = [];
    if (failure) {
      const serving = failure.serving ? " The previous version keeps serving." : "";
      nodes.push(line(`${failure.message}.`.replace(/\.\.$/, ".") + serving, "bad"));
    }
    if (note) nodes.push(line(note, "warn"));
    if (looped) nodes.push(line("A loop is likely: traffic came back to the fleet, or exceeded its hop limit.", "warn"));
    if (reached === "Tenant") nodes.push(line("The share of the namespace is used up: sessions are refused.", "warn"));
    if (reached === "Source") nodes.push(line("One source has used up its share: its sessions are refused.", "warn"));
    if (reached === "Lookups") nodes.push(line("The lookups of the namespace are used up: DNS names wait.", "warn"));
    nodes.push(make("h3", {}, "Backends"));
    nodes.push(backends.length ? make("ul", {}, ...backends.map(backendItem)) : line("none"));
    nodes.push(make("h3", {}, state.cluster ? "Since the page is followed" : "Since the listener exists"));
    nodes.push(line(`${counted(counts.opened, "session")} opened, ${bytes(counts.up)} up, ${bytes(counts.down)} down`));
    for (const [what, of] of [["Closed", closed], ["Datagrams dropped", dropped], ["Addresses not used", refusedAddresses]]) {
      if (of && Object.keys(of).length) nodes.push(line(`${what}: ${list(of)}`));
    }
    row.panel.replaceChildren(...nodes);
  }
  function backendItem(backend) {
    const parts = [`weight ${backend.weight}`, `priority ${backend.priority}`,
      `${counted(backend.sessions, "session")} connected`];
    if (backend.failures) parts.push(`${counted(backend.failures, "connect")} failed`);
    const endpoints = backend.listed.map((endpoint) => {
      const look = { Healthy: "good", Unknown: "warn", NotConnected: "warn" }[endpoint.health] ?? "bad";
      const words = { Healthy: "healthy", Unknown: "not checked yet", Ejected: "ejected", CheckFailed: "check fails",
        NotConnected: "agent not connected" };
      const live = endpoint.live ? `, ${count.format(endpoint.live)} live` : "";
      if (endpoint.health === null) return make("li", {}, `${endpoint.address}${live}`);
      return make("li", {}, make("span", { class: look }, `${endpoint.address} ${words[endpoint.health] ?? endpoint.health}${live}`));
    });
    const rest = backend.endpoints - backend.listed.length;
    if (rest > 0) endpoints.push(make("li", { class: "soft" }, `and ${count.format(rest)} more`));
    if (backend.endpoints === null) endpoints.push(make("li", { class: "soft" }, "endpoints are known to the proxies"));
    else if (!backend.endpoints) endpoints.push(make("li", {}, make("span", { class: "bad" }, "no endpoint")));
    return make("li", {}, make("strong", {}, backend.name), ` ${parts.join(", ")}`, make("ul", {}, ...endpoints));
  }

  const words = () => $("filter").value.trim().toLowerCase();
  function matches(forward, listener, wanted) {
    const backends = listener.backends.flatMap((it) => [it.name, ...it.listed.map((endpoint) => endpoint.address)]);
    const texts = [key(forward, listener), listener.address ?? "", listener.state, ...listener.hostnames, ...backends];
    return texts.some((text) => text.toLowerCase().includes(wanted));
  }
  function showForwards() {
    const [before, wanted, bodies] = [countsByListener(last), words(), []];
    let found = 0;
    const present = new Set();
    for (const forward of state.forwards) {
      const group = groupOf(forward.name);
      const nodes = [group.row];
      const rows = new Set(forward.listeners.map((listener) => listener.name));
      for (const name of group.rows.keys()) if (!rows.has(name)) group.rows.delete(name);
      for (const listener of forward.listeners) {
        const row = rowOf(group, listener);
        showRow(row, listener, before.get(key(forward, listener)));
        if (wanted && !matches(forward, listener, wanted)) continue;
        nodes.push(row.main, row.detail);
        found += 1;
      }
      present.add(forward.name);
      arrange(group.body, nodes);
      if (nodes.length > 1) bodies.push(group.body);
    }
    for (const name of groups.keys()) if (!present.has(name)) groups.delete(name);
    arrange($("forwards"), bodies, 2); // behind caption and header
    $("forwards").hidden = found === 0;
    const { all, omitted } = state.listeners;
    const notes = [];
    if (all === 0) notes.push(state.cluster ? "No PortForward is shown." : "No forward runs.");
    else if (wanted) notes.push(`${count.format(found)} of ${count.format(all)} listeners match.`);
    if (omitted) notes.push(`${counted(omitted, "listener")} ${omitted === 1 ? "is" : "are"} not shown${state.cluster ? "." : ": see /listeners."}`);
    say($("forwards-note"), notes.join(" "));
    $("forwards-note").hidden = notes.length === 0;
  }

  // ---- Live sessions, read while their section is open ----

  const COLUMNS = [
    ["Listener", (it) => (it.pod ? `${it.listener} in ${it.pod}` : it.listener), String],
    ["Client", (it) => it.client, String],
    ["Backend", (it) => it.backend ?? "", (text) => text || "–"],
    ["Endpoint", (it) => it.endpoint ?? it.instance ?? "", (text) => text || "–"],
    ["Up", (it) => it.bytesUp, bytes],
    ["Down", (it) => it.bytesDown, bytes],
    ["Age", (it) => it.seconds, age],
    ["Session", (it) => it.session ?? "", (text) => text || "–"],
  ];
  const isNumber = (column) => column > 3 && column < 7;
  let sort = { column: 5, down: true };
  let sessions = null;
  let reader = null; // its timer

  function showSessions() {
    if (!sessions) return;
    const wanted = words();
    const [, value] = COLUMNS[sort.column];
    const order = (one, other) => {
      const [a, b] = [value(one), value(other)];
      return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    };
    const text = (it) => [it.listener, it.pod, it.client, it.backend, it.endpoint, it.instance, it.serverName, it.session].join(" ").toLowerCase();
    const rows = sessions.filter((it) => !wanted || text(it).includes(wanted));
    rows.sort((one, other) => (sort.down ? order(other, one) : order(one, other)));
    [...$("sessions").tHead.rows[0].cells].forEach((cell, at) => {
      cell.setAttribute("aria-sort", at !== sort.column ? "none" : sort.down ? "descending" : "ascending");
    });
    $("sessions").tBodies[0].replaceChildren(...rows.map((it) => make("tr", { role: "row" },
      ...COLUMNS.map(([label, get, show], at) => make("td",
        { role: "cell", "data-label": label, class: isNumber(at) ? "number" : "" }, make("span", {}, show(get(it))))))));
    const live = Math.max(state?.totals.live ?? 0, sessions.length);
    say($("sessions-note"), rows.length === live ? `${count.format(live)} live`
      : `${count.format(rows.length)} of ${count.format(live)} live shown`);
    $("sessions").hidden = rows.length === 0;
  }
  async function readSessions() {
    clearTimeout(reader);
    if ($("sessions-panel").hidden) return;
    if (!document.hidden) {
      try {
        const answer = await fetch(`conns?limit=${MOST_SESSIONS}`, { cache: "no-store" });
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        sessions = await answer.json();
        showSessions();
      } catch (error) {
        say($("sessions-note"), `The sessions cannot be read: ${error.message}`);
      }
    }
    clearTimeout(reader);
    reader = setTimeout(readSessions, SESSIONS_MILLIS);
  }
  $("sessions").tHead.rows[0].append(...COLUMNS.map(([label], column) => {
    const button = make("button", { type: "button" }, label);
    button.addEventListener("click", () => {
      sort = { column, down: sort.column === column ? !sort.down : isNumber(column) };
      showSessions();
    });
    return make("th", { scope: "col", role: "columnheader", class: isNumber(column) ? "number" : "" }, button);
  }));
  $("sessions-button").addEventListener("click", () => {
    $("sessions-panel").hidden = !$("sessions-panel").hidden;
    $("sessions-button").setAttribute("aria-expanded", String(!$("sessions-panel").hidden));
    readSessions();
  });
  $("filter").addEventListener("input", () => {
    if (state) showForwards();
    showSessions();
  });

  // ---- Events ----

  let newest = 0;
  function showEvents({ notices }) {
    // Another process counts from the start.
    if (notices.length && notices.at(-1).number < newest) newest = 0;
    const fresh = notices.filter((notice) => notice.number > newest);
    if (newest === 0) $("events").replaceChildren();
    for (const notice of fresh) {
      const look = { warn: "warn", error: "bad" }[notice.level] ?? "soft";
      const time = make("time", { datetime: new Date(notice.at).toISOString() }, clock(notice.at));
      const level = make("span", { class: look }, { warn: "warning" }[notice.level] ?? notice.level);
      const texts = [notice.event, notice.subject, notice.message].map((text) => make("span", {}, text));
      $("events").prepend(make("li", {}, time, level, ...texts));
      newest = notice.number;
    }
    while ($("events").children.length > MOST_EVENTS) $("events").lastElementChild.remove();
    $("events-box").hidden = !$("events").children.length;
    $("events-note").hidden = !$("events-box").hidden;
    // Screen readers read out what comes from now on, not what was there before.
    setTimeout(() => $("events").setAttribute("aria-live", "polite"), 0);
  }

  // ---- The stream ----

  let stream = null;
  let heard = 0; // when the last state came, by the clock of the browser
  let lostAt = 0; // when the stream broke; 0: it has not

  function tell(how, text) {
    $("status").dataset.state = how;
    say($("status"), text);
  }
  function lose(why) {
    tell("lost", `${why} ${state ? `The state below is of ${clock(state.at)}. ` : ""}Trying again.`);
  }
  function follow() {
    stream?.close();
    stream = new EventSource("events");
    stream.addEventListener("state", ({ data }) => {
      const next = JSON.parse(data);
      // A cluster that cannot be read is the state before with other notes.
      if (next.at !== state?.at) last = state;
      state = next;
      [heard, lostAt] = [Date.now(), 0];
      tell("live", "Live");
      showNotes();
      showSummary();
      showChart();
      showForwards();
    });
    stream.addEventListener("notices", ({ data }) => showEvents(JSON.parse(data)));
    stream.addEventListener("error", () => {
      lostAt ||= Date.now();
      // The browser itself opens a stream again that has ended, but none that was refused.
      if (stream.readyState === EventSource.CLOSED) {
        lose(`${server()} refuses another page: too many follow it, or it is shutting down.`);
        setTimeout(() => document.hidden || follow(), RETRY_MILLIS);
      }
    });
  }
  setInterval(() => {
    if (!stream || stream.readyState === EventSource.CLOSED) return;
    if (lostAt && Date.now() - lostAt > GRACE_MILLIS) lose(`The connection to ${server().toLowerCase()} is lost.`);
    else if (!lostAt && heard && Date.now() - heard > (state?.cluster?.patienceMillis ?? SILENCE_MILLIS)) {
      lose(`${server()} has sent nothing for a while.`);
    }
  }, 1000);
  let leave = null;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(leave);
    if (document.hidden) {
      leave = setTimeout(() => {
        stream?.close();
        tell("waiting", "Paused while the page was hidden");
      }, HIDDEN_MILLIS);
    } else if (stream?.readyState === EventSource.CLOSED) {
      follow();
    }
  });
  follow();
}
