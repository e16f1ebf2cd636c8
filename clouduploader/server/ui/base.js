// What all pages share. Whatever comes from the server becomes text, never markup.

export const REFRESH_MS = 2000;
const USE_MS = 60000; // a session is kept alive so often at most, while the user does something
const DECEPTIVE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

export const byId = (id) => document.getElementById(id);
// What would make a text look like another, such as a change of its direction, is shown as an escape.
export function shown(text) {
  return String(text).replace(DECEPTIVE, (char) => "\\u" + char.charCodeAt(0).toString(16).padStart(4, "0"));
}

export function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text) made.textContent = shown(text);
  if (className) made.className = className;
  return made;
}

export function hasNumber(value) {
  return typeof value === "number"; // a damaged job has none of them
}

export function setText(node, text) {
  const wanted = shown(text);
  if (node.textContent !== wanted) node.textContent = wanted; // an unchanged text keeps its selection
}

export function size(bytes) {
  if (!hasNumber(bytes)) return "";
  let value = bytes, unit = 0;
  for (; value >= 1024 && unit < 4; unit++) value /= 1024;
  return (unit ? value.toFixed(1) : value) + " " + ["B", "KiB", "MiB", "GiB", "TiB"][unit];
}

export function duration(seconds) {
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  let left = Math.max(0, Math.round(seconds));
  const first = Math.max(0, parts.findIndex(([, length]) => left >= length));
  if (!left) return "0 s";
  return parts.slice(first, first + 2).map(([unit, length]) => {
    const count = Math.floor(left / length);
    left -= count * length;
    return count ? count + " " + unit : "";
  }).filter(Boolean).join(" ");
}

const RELATIVE = new Intl.RelativeTimeFormat("en", {numeric: "auto"});

export function ago(date) {
  const passed = (Date.now() - date) / 1000;
  const [unit, length] = [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]]
    .find(([, length]) => Math.abs(passed) >= length) || ["second", 1];
  return RELATIVE.format(-Math.round(passed / length), unit);
}

// A moment as the server tells it, relative to now; in full as the tooltip, and when it is copied.
export function setTime(node, moment) {
  const date = new Date(moment);
  if (!moment || isNaN(date)) return node.replaceChildren();
  const time = node.querySelector("time") || node.appendChild(document.createElement("time"));
  time.dateTime = date.toISOString();
  time.title = date.toLocaleString();
  setText(time, ago(date));
}

export function setState(node, state) {
  setText(node, state);
  node.className = "state " + (/^[a-z]+$/.test(state) ? state : "");
}

export function setProgress(node, job) {
  const bar = node.querySelector("progress");
  if (job.state !== "uploading" || !hasNumber(job.progress)) return bar && bar.remove();
  const there = bar || node.appendChild(element("progress"));
  there.max = 100;
  there.value = job.progress;
  there.setAttribute("aria-label", "progress of job " + job.id);
  there.title = job.progress + " %";
}

export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

// Ask for a document of the API; null if it is not there.
export async function ask(path, signal) {
  const answer = await fetch("/api/v1" + path, {signal, cache: "no-store"});
  if (answer.status === 401) return goToSignIn();
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(problem(answer.status, await answer.text()));
  return answer.json();
}

// Send what changes something, and return the answer's document; null if it has none.
export async function change(method, path, body) {
  const answer = await send(method, "/api/v1" + path, body);
  if (answer.status === 401) return goToSignIn();
  if (!answer.ok) throw new Error(problem(answer.status, await answer.text()));
  return answer.status === 204 ? null : answer.json();
}

export function send(method, path, body) {
  const headers = csrf();
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return fetch(path, {method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store"});
}

export function csrf() {
  return session && session.csrf ? {"X-CSRF-Token": session.csrf} : {};
}

// Why a request was not done, in a sentence (RFC 9457).
export function problem(status, text) {
  try {
    const {detail, hint} = JSON.parse(text);
    if (detail) return [detail, hint].filter(Boolean).join(". ");
  } catch {} // a proxy has answered
  return "the server answers " + status;
}

// Repeat, also after a failure, but not while the page is hidden.
export async function forEver(work, milliseconds) {
  for (;;) {
    if (!document.hidden) {
      try {
        await work();
      } catch (error) {
        if (error.name !== "AbortError") setText(byId("status"), "The server can't be asked (" + error.message + "). Trying again.");
      }
    }
    await pause(milliseconds());
  }
}

// --- who is here

export let session = null;
const PAGES = [["/ui", "Jobs"], ["/ui/upload", "Upload"], ["/ui/accounts", "Accounts"], ["/ui/tokens", "Tokens"], ["/ui/service", "Service", "admin"]];

// The session may be over; the promise never ends, as the page does.
export function goToSignIn() {
  location.assign("/ui/sign-in?next=" + encodeURIComponent(location.pathname));
  return new Promise(() => {});
}

export async function readSession() {
  session = await (await fetch("/ui/session", {cache: "no-store"})).json();
}

// Show the pages, who is signed in, and the way out, or the way in; nothing where there is no sign-in.
export async function start() {
  await readSession();
  if (!session.ways.length) return;
  const nav = byId("nav");
  nav.hidden = false;
  if (session.csrf === null) {
    nav.append(link("/ui/sign-in", "Sign in"));
    return;
  }
  for (const [path, name, role] of PAGES) {
    if (role && session.role !== role) continue;
    const made = nav.appendChild(link(path, name));
    if (path === location.pathname) made.setAttribute("aria-current", "page");
  }
  const who = element("span", session.user + (session.role === "user" ? "" : " (" + session.role + ")"));
  who.id = "who";
  nav.append(who, button("Sign out", async () => {
    await send("POST", "/ui/sign-out");
    location.assign("/ui/sign-in");
  }));
  let used = Date.now();
  for (const kind of ["pointerdown", "keydown"]) {
    addEventListener(kind, () => {
      if (Date.now() - used < USE_MS) return;
      used = Date.now();
      readSession().catch(() => {}); // the next one will do
    });
  }
}

export function link(path, text) {
  const made = element("a", text);
  made.href = path;
  return made;
}

export function button(text, work) {
  const made = element("button", text);
  made.type = "button";
  made.addEventListener("click", work);
  return made;
}

// Ask whether a user is sure; true if so. Escape and the first button are no.
export function confirmed(question, text, yes) {
  const dialog = document.body.appendChild(element("dialog")), form = element("form"), title = element("h2", question);
  form.method = "dialog";
  title.id = "sure-title";
  dialog.setAttribute("aria-labelledby", title.id);
  const no = element("button", "Leave it"), go = element("button", yes), buttons = element("p", null, "buttons");
  no.autofocus = true;
  go.value = "yes";
  buttons.append(no, go);
  form.append(title, element("p", text), buttons);
  dialog.append(form);
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    dialog.showModal();
  });
}

// A row of a table: a cell for each column, with its name for narrow screens; a cell is a text or a node.
export function makeRow(columns, cells) {
  const row = element("tr");
  row.setAttribute("role", "row");
  cells.forEach((content, index) => {
    const cell = element("td");
    cell.setAttribute("role", "cell");
    if (columns[index]) cell.dataset.label = columns[index];
    cell.append(content instanceof Node ? content : shown(content ?? ""));
    row.append(cell);
  });
  return row;
}

export function showColumns(columns, id = "columns") {
  byId(id).replaceChildren(...columns.map((name) => {
    const cell = element("th", name);
    cell.setAttribute("role", "columnheader");
    cell.scope = "col";
    return cell;
  }));
}

// A moment as a node; the text for none.
export function timeOr(moment, none) {
  const node = element("span");
  if (moment) setTime(node, moment);
  else setText(node, none);
  return node;
}

export function describe(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([label, value]) => {
    const node = element("dd");
    node.append(value instanceof Node ? value : shown(value));
    return [element("dt", label), node];
  }));
}
