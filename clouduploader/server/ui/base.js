// What all pages share. Whatever comes from the server becomes text, never markup.

export const REFRESH_MS = 2000;
const USE_MS = 60000; // a session is kept alive so often at most, while the user does something
const DECEPTIVE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

export const byId = (id) => document.getElementById(id);
let now = 0; // of the server, in seconds since the epoch: times are told by its clock

export function setNow(seconds) {
  now = seconds;
}

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

export function ago(seconds) {
  const passed = now - seconds;
  const [unit, length] = [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]]
    .find(([, length]) => Math.abs(passed) >= length) || ["second", 1];
  return RELATIVE.format(-Math.trunc(passed / length), unit);
}

// A moment, relative to now; in full as the tooltip, and when it is copied.
export function setTime(node, seconds) {
  if (!hasNumber(seconds)) return node.replaceChildren();
  const time = node.querySelector("time") || node.appendChild(document.createElement("time"));
  const date = new Date(seconds * 1000);
  if (isNaN(date)) return node.replaceChildren();
  time.dateTime = date.toISOString();
  time.title = date.toLocaleString();
  setText(time, ago(seconds));
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
  there.setAttribute("aria-label", "progress of job " + job.name);
  there.title = job.progress + " %";
}

export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

export async function ask(path, signal) {
  const answer = await fetch(path, {signal, cache: "no-store"});
  if (answer.status === 404) return null;
  if (answer.status === 401) return goToSignIn();
  if (!answer.ok) throw new Error("the server answers " + answer.status);
  return answer;
}

// --- who is here

export let session = null;

// The session may be over; the promise never ends, as the page does.
function goToSignIn() {
  location.assign("/ui/sign-in?next=" + encodeURIComponent(location.pathname));
  return new Promise(() => {});
}

export async function readSession() {
  session = await (await fetch("/ui/session", {cache: "no-store"})).json();
}

// Show who is signed in, with the way out, or the way in; nothing where there is no sign-in.
export async function start() {
  await readSession();
  if (!session.ways.length) return;
  const place = byId("who");
  if (session.csrf === null) {
    const link = place.appendChild(element("a", "Sign in"));
    link.href = "/ui/sign-in";
    return;
  }
  const button = element("button", "Sign out");
  button.type = "button";
  button.addEventListener("click", async () => {
    await change("POST", "/ui/sign-out");
    location.assign("/ui/sign-in");
  });
  place.append(element("span", session.user + (session.role === "user" ? "" : " (" + session.role + ")")), button);
  let used = Date.now();
  for (const kind of ["pointerdown", "keydown"]) {
    addEventListener(kind, () => {
      if (Date.now() - used < USE_MS) return;
      used = Date.now();
      readSession().catch(() => {}); // the next one will do
    });
  }
}

// Send what changes something.
export async function change(method, path, body) {
  const headers = {};
  if (session && session.csrf) headers["X-CSRF-Token"] = session.csrf;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return fetch(path, {method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store"});
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

