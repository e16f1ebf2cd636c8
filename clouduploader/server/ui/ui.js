// Shows jobs, and follows the log of one. Whatever comes from the server becomes text, never markup.
"use strict";

const REFRESH_MS = 2000;
const PAGE_JOBS = 200;
const TAIL_BYTES = 262144; // of a long log the end is shown
const MAX_CHARS = 2000000; // of a log in the page; what is older is dropped
const BOTTOM_PX = 30; // who is that near to the end of the log goes along with it
const FINAL = new Set(["succeeded", "failed"]);
const FIELDS = [
  ["State", (job) => job.state], ["Details", (job) => job.details], ["Progress", (job) => !hasNumber(job.progress) ? null : job.progress + " %"],
  ["Try", (job) => job.try], ["User", (job) => job.user], ["Target", (job) => job.target], ["Image", (job) => job.filename],
  ["Size", (job) => !hasNumber(job.size) ? null : job.size.toLocaleString() + " bytes"], ["Project", (job) => job.project],
  ["Package", (job) => job.package], ["Repository", (job) => job.repository], ["Architecture", (job) => job.arch],
  ["Created", (job) => time(job.created)], ["Damage", (job) => job.damage],
];

const DECEPTIVE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

const byId = (id) => document.getElementById(id);
const rows = new Map(); // of the table, by the name of the job
let jobs = [];
let wanted = PAGE_JOBS;
let following = null; // {name, controller} of the log that is shown

// What would make a text look like another, such as a change of its direction, is shown as an escape.
function shown(text) {
  return text.replace(DECEPTIVE, (char) => "\\u" + char.charCodeAt(0).toString(16).padStart(4, "0"));
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text) made.textContent = shown(text);
  if (className) made.className = className;
  return made;
}

function hasNumber(value) {
  return typeof value === "number"; // a damaged job has none of them
}

function setText(node, text) {
  const wanted = shown(text);
  if (node.textContent !== wanted) node.textContent = wanted; // an unchanged text keeps its selection
}

function time(seconds) {
  return !hasNumber(seconds) ? "" : new Date(seconds * 1000).toLocaleString();
}

function size(bytes) {
  if (!hasNumber(bytes)) return "";
  let value = bytes, unit = 0;
  for (; value >= 1024 && unit < 4; unit++) value /= 1024;
  return (unit ? value.toFixed(1) : value) + " " + ["B", "KiB", "MiB", "GiB", "TiB"][unit];
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    if (signal) signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, {once: true});
  });
}

// --- the list

function makeRow(name) {
  const row = element("tr");
  const link = element("a", name);
  link.href = "#" + name;
  const cell = element("td", null, "name");
  cell.append(link);
  row.append(cell);
  for (const column of ["state-cell", "user", "target", "image", "size", "created", "details"]) row.append(element("td", null, column));
  row.children[1].append(element("span", null, "state"));
  return row;
}

function fillRow(row, job) {
  const [, state, user, target, image, bytes, created, details] = row.children;
  const word = state.firstChild;
  setText(word, job.state);
  word.className = "state " + (/^[a-z]+$/.test(job.state) ? job.state : "");
  const bar = state.querySelector("progress");
  if (job.state === "uploading" && hasNumber(job.progress)) {
    const shown = bar || state.appendChild(element("progress"));
    shown.max = 100;
    shown.value = job.progress;
    shown.setAttribute("aria-label", "progress of job " + job.name);
    shown.title = job.progress + " %";
  } else if (bar) {
    bar.remove();
  }
  setText(user, job.user || "");
  setText(target, job.target || "");
  setText(image, [job.package, job.filename].filter(Boolean).join(" / "));
  setText(bytes, size(job.size));
  setText(created, time(job.created));
  setText(details, job.damage || job.details || "");
  if (following && following.name === job.name) row.setAttribute("aria-current", "true");
  else row.removeAttribute("aria-current");
}

function isWanted(job) {
  if (byId("unfinished").checked && FINAL.has(job.state)) return false;
  const words = byId("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [job.name, job.state, job.user, job.target, job.project, job.package, job.filename].join("\n").toLowerCase();
  return words.every((word) => text.includes(word));
}

function showJobs() {
  const shown = jobs.filter(isWanted);
  const names = new Set(shown.map((job) => job.name));
  for (const [name, row] of rows) {
    if (!names.has(name)) {
      row.remove();
      rows.delete(name);
    }
  }
  let before = byId("jobs").firstChild;
  for (const job of shown) {
    let row = rows.get(job.name);
    if (!row) {
      row = makeRow(job.name);
      rows.set(job.name, row);
    }
    fillRow(row, job);
    if (row === before) before = row.nextSibling;
    else byId("jobs").insertBefore(row, before);
  }
  showFields();
}

async function refresh() {
  const answer = await fetch("/ui/jobs?limit=" + wanted, {cache: "no-store"});
  if (!answer.ok) throw new Error("the server answers " + answer.status);
  const found = await answer.json();
  jobs = found.jobs;
  showJobs();
  byId("more").hidden = found.total <= jobs.length;
  const busy = jobs.filter((job) => job.state === "uploading").length;
  setText(byId("status"), found.total ? found.total + (found.total === 1 ? " job, " : " jobs, ") + busy + " uploading" : "There are no jobs yet.");
}

async function refreshForEver() {
  for (;;) {
    if (!document.hidden) {
      try {
        await refresh();
      } catch (error) {
        setText(byId("status"), "The server can't be asked (" + error.message + "). Trying again.");
      }
    }
    await pause(REFRESH_MS);
  }
}

// --- one job

function showFields() {
  if (!following) return;
  const job = jobs.find((it) => it.name === following.name);
  const list = byId("fields");
  const wantedPairs = job ? FIELDS.map(([label, value]) => [label, value(job)]).filter(([, value]) => value || value === 0) : [];
  const pairs = wantedPairs.map(([label, value]) => [label, String(value)]);
  const isSame = pairs.length * 2 === list.children.length &&
    pairs.every(([label], index) => list.children[2 * index].textContent === label);
  if (!isSame) list.replaceChildren(...pairs.flatMap(([label]) => [element("dt", label), element("dd")]));
  pairs.forEach(([, value], index) => setText(list.children[2 * index + 1], value));
}

function openJob() {
  const name = location.hash.slice(1);
  if (following) following.controller.abort();
  const last = following;
  following = null;
  const isJob = /^[0-9]+$/.test(name);
  byId("job").hidden = !isJob;
  if (isJob) {
    following = {name, controller: new AbortController()};
    setText(byId("job-title"), "Job " + name);
    byId("log").replaceChildren();
    setText(byId("log-status"), "");
    followLog(name, following.controller.signal);
    byId("job-title").focus();
  } else if (last && rows.has(last.name)) {
    rows.get(last.name).querySelector("a").focus();
  }
  byId("fields").replaceChildren();
  showJobs();
}

function appendLog(text) {
  const log = byId("log");
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < BOTTOM_PX;
  log.append(shown(text));
  let length = log.textContent.length;
  while (length > MAX_CHARS && log.childNodes.length > 1) {
    length -= log.firstChild.length;
    log.firstChild.remove();
  }
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

// How long the log is now; null if there is none.
async function logSize(path, signal) {
  const answer = await fetch(path + "?view=entry", {signal, cache: "no-store"});
  if (!answer.ok) return null;
  const entry = new DOMParser().parseFromString(await answer.text(), "application/xml").querySelector("entry");
  return entry ? Number(entry.getAttribute("size")) : null;
}

// Follow a log until the signal. The server's answer goes on as long as a job runs; after that, and if it
// breaks off, we look from time to time, for who was killed may still write while he cleans up.
async function followLog(name, signal) {
  const path = "/cloudupload/" + name + "/_log";
  const say = (text) => { if (!signal.aborted) setText(byId("log-status"), text); };
  let position = null;
  let decoder = new TextDecoder();
  while (!signal.aborted) {
    try {
      const length = await logSize(path, signal);
      if (signal.aborted) return;
      if (length === null) {
        const job = jobs.find((it) => it.name === name);
        say(job && FINAL.has(job.state) ? "This job has no log." : "There is no log yet.");
      } else if (position === null || length < position) { // the first look, or a new try with a new log
        position = Math.max(0, length - TAIL_BYTES);
        decoder = new TextDecoder();
        byId("log").replaceChildren();
        if (position) appendLog("[the first " + position.toLocaleString() + " bytes are not shown]\n");
        say("");
      }
      if (length !== null && length >= position) {
        const job = jobs.find((it) => it.name === name);
        if (length > position || (job && !FINAL.has(job.state))) {
          const answer = await fetch(path + "?start=" + position, {signal, cache: "no-store"});
          if (answer.ok) {
            for (const reader = answer.body.getReader();;) {
              const {done, value} = await reader.read();
              if (done || signal.aborted) break;
              position += value.length;
              appendLog(decoder.decode(value, {stream: true}));
            }
          }
        }
      }
    } catch (error) {
      say("The log can't be read just now (" + error.message + "). Trying again.");
    }
    await pause(REFRESH_MS, signal);
  }
}

byId("filter").addEventListener("submit", (event) => event.preventDefault());
byId("words").addEventListener("input", showJobs);
byId("unfinished").addEventListener("change", showJobs);
byId("more").addEventListener("click", () => { wanted += PAGE_JOBS; refresh().catch(() => {}); });
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && following) location.hash = ""; });
window.addEventListener("hashchange", openJob);
refreshForEver();
openJob();
