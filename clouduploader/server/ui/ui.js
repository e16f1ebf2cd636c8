// The list of jobs, and the page of one. Whatever comes from the server becomes text, never markup.
"use strict";

const REFRESH_MS = 2000;
const SEARCH_REFRESH_MS = 15000; // a search reads thousands of records
const TYPING_MS = 300;
const PAGE_JOBS = 50;
const TAIL_BYTES = 1048576; // of a long log the end is shown
const MAX_CHARS = 4000000; // of a log in the page; what is older is dropped
const MAX_HITS = 10000;
const BOTTOM_PX = 30; // a reader this near to the end of the log follows it
const RUNNING = ["created", "receiving", "scheduled", "uploading", "waiting"];
const FIELDS = [
  ["Progress", (job) => hasNumber(job.progress) ? job.progress + " %" : ""], ["Try", (job) => job.try], ["User", (job) => job.user],
  ["Target", (job) => job.target], ["Image", (job) => job.filename],
  ["Size", (job) => hasNumber(job.size) ? size(job.size) + (job.size < 1024 ? "" : " (" + job.size.toLocaleString() + " bytes)") : ""],
  ["Project", (job) => job.project], ["Repository", (job) => job.repository], ["Package", (job) => job.package],
  ["Architecture", (job) => job.arch],
];
const DECEPTIVE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

const byId = (id) => document.getElementById(id);
let now = 0; // of the server, in seconds since the epoch: times are told by its clock

// What would make a text look like another, such as a change of its direction, is shown as an escape.
function shown(text) {
  return String(text).replace(DECEPTIVE, (char) => "\\u" + char.charCodeAt(0).toString(16).padStart(4, "0"));
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

function size(bytes) {
  if (!hasNumber(bytes)) return "";
  let value = bytes, unit = 0;
  for (; value >= 1024 && unit < 4; unit++) value /= 1024;
  return (unit ? value.toFixed(1) : value) + " " + ["B", "KiB", "MiB", "GiB", "TiB"][unit];
}

function duration(seconds) {
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

function ago(seconds) {
  const passed = now - seconds;
  const [unit, length] = [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]]
    .find(([, length]) => Math.abs(passed) >= length) || ["second", 1];
  return RELATIVE.format(-Math.trunc(passed / length), unit);
}

// A moment, relative to now; in full as the tooltip, and when it is copied.
function setTime(node, seconds) {
  if (!hasNumber(seconds)) return node.replaceChildren();
  const time = node.querySelector("time") || node.appendChild(document.createElement("time"));
  const date = new Date(seconds * 1000);
  if (isNaN(date)) return node.replaceChildren();
  time.dateTime = date.toISOString();
  time.title = date.toLocaleString();
  setText(time, ago(seconds));
}

function setState(node, state) {
  setText(node, state);
  node.className = "state " + (/^[a-z]+$/.test(state) ? state : "");
}

function setProgress(node, job) {
  const bar = node.querySelector("progress");
  if (job.state !== "uploading" || !hasNumber(job.progress)) return bar && bar.remove();
  const there = bar || node.appendChild(element("progress"));
  there.max = 100;
  there.value = job.progress;
  there.setAttribute("aria-label", "progress of job " + job.name);
  there.title = job.progress + " %";
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function ask(path, signal) {
  const answer = await fetch(path, {signal, cache: "no-store"});
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error("the server answers " + answer.status);
  return answer;
}

// Repeat, also after a failure, but not while the page is hidden.
async function forEver(work, milliseconds) {
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

// --- the list

const COLUMNS = [["name", ""], ["state-cell", ""], ["user", "User"], ["target", "Target"], ["image", ""], ["size", ""], ["created", ""], ["details", ""]];
const rows = new Map(); // of the table, by the name of the job
let wanted = PAGE_JOBS; // how many are shown
let asking = null; // ends the question that is under way

function filterQuery() {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(byId("filter"))) if (value.trim()) query.set(name, value.trim());
  return query;
}

function makeRow(name) {
  const row = element("tr");
  row.setAttribute("role", "row");
  for (const [column, label] of COLUMNS) {
    const cell = element("td", null, column);
    cell.setAttribute("role", "cell");
    if (label) cell.dataset.label = label;
    row.append(cell);
  }
  const link = element("a", name);
  link.href = "/ui/job/" + name;
  row.children[0].append(link);
  row.children[1].append(element("span", null, "state"));
  return row;
}

function fillRow(row, job) {
  const [, state, user, target, image, bytes, created, details] = row.children;
  setState(state.firstChild, job.state);
  setProgress(state, job);
  setText(user, job.user || "");
  setText(target, job.target || "");
  setText(image, [job.package, job.filename].filter(Boolean).join(" / "));
  setText(bytes, size(job.size));
  setTime(created, job.created);
  setText(details, job.damage || job.details || "");
}

function showJobs(jobs) {
  const names = new Set(jobs.map((job) => job.name));
  for (const [name, row] of rows) {
    if (!names.has(name)) {
      row.remove();
      rows.delete(name);
    }
  }
  let before = byId("jobs").firstChild;
  for (const job of jobs) {
    let row = rows.get(job.name);
    if (!row) rows.set(job.name, row = makeRow(job.name));
    fillRow(row, job);
    if (row === before) before = row.nextSibling;
    else byId("jobs").insertBefore(row, before);
  }
}

function suggest(id, values) {
  const list = byId(id);
  const known = new Set([...list.children].map((option) => option.value));
  for (const value of values) {
    if (!value || known.has(value) || known.size >= 100) continue;
    known.add(value);
    const option = element("option");
    option.value = value;
    list.append(option);
  }
}

// One answer is a piece of the list; in a long archive a rare word may take many of them.
async function refreshList() {
  if (asking) asking.abort();
  asking = new AbortController();
  const signal = asking.signal, query = filterQuery(), isFiltered = query.size > 0;
  if (query.get("state") === "running") {
    query.delete("state");
    RUNNING.forEach((state) => query.append("state", state));
  }
  query.set("limit", PAGE_JOBS);
  const jobs = [];
  let before = null, total = 0;
  do {
    if (before === null) query.delete("before");
    else query.set("before", before);
    const found = await (await ask("/ui/jobs?" + query, signal)).json();
    jobs.push(...found.jobs);
    ({now, total, before} = found);
    if (before !== null && jobs.length < wanted) {
      showJobs(jobs);
      setText(byId("status"), isFiltered ? "Searching; older than job " + before : "Loading");
    }
  } while (before !== null && jobs.length < wanted);
  showJobs(jobs);
  suggest("users", jobs.map((job) => job.user));
  suggest("targets", jobs.map((job) => job.target));
  byId("more").hidden = before === null;
  const none = byId("none");
  none.hidden = jobs.length > 0;
  setText(none, total ? "No job matches." : "There are no jobs yet.");
  const count = total.toLocaleString() + (total === 1 ? " job" : " jobs");
  const busy = jobs.filter((job) => job.state === "uploading").length;
  const matches = jobs.length.toLocaleString() + (before === null ? "" : " or more") + " of " + count;
  setText(byId("status"), isFiltered ? matches : count + (busy ? ", " + busy + " uploading" : ""));
}

function startList() {
  const form = byId("filter");
  for (const [name, value] of new URLSearchParams(location.search)) if (form.elements[name]) form.elements[name].value = value;
  sessionStorage.setItem("list", location.href);
  let timer = null;
  const change = () => {
    const query = String(filterQuery());
    history.replaceState(null, "", query ? "/ui?" + query : "/ui");
    sessionStorage.setItem("list", location.href);
    refreshList().catch((error) => {
      if (error.name !== "AbortError") setText(byId("status"), "The server can't be asked (" + error.message + "). Trying again.");
    });
  };
  const filter = () => { clearTimeout(timer); wanted = PAGE_JOBS; change(); };
  form.addEventListener("submit", (event) => { event.preventDefault(); filter(); });
  form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(filter, TYPING_MS); });
  form.addEventListener("reset", () => setTimeout(filter)); // once it is empty
  byId("more").addEventListener("click", () => { wanted += PAGE_JOBS; change(); });
  forEver(refreshList, () => filterQuery().size || wanted > PAGE_JOBS ? SEARCH_REFRESH_MS : REFRESH_MS);
}

// --- one job

const log = {id: null, position: 0, decoder: null, text: null};
let hits = [], hit = -1;

function showJob(job) {
  document.title = "Job " + job.name + " " + shown(job.state) + " - Cloud uploads";
  byId("job").hidden = false;
  byId("job").className = /^[a-z]+$/.test(job.state) ? job.state : "";
  setState(byId("state"), job.state);
  setProgress(byId("outcome"), job);
  const isOver = job.state === "succeeded" || job.state === "failed";
  const when = [];
  if (isOver && hasNumber(job.changed)) when.push(ago(job.changed));
  if (isOver && hasNumber(job.changed) && hasNumber(job.created)) when.push("after " + duration(job.changed - job.created));
  if (!isOver && hasNumber(job.created)) when.push("created " + ago(job.created));
  setText(byId("when"), when.join(", "));
  setText(byId("reason"), job.damage || job.details || "");
  const pairs = FIELDS.map(([label, value]) => [label, value(job)]).filter(([, value]) => value || value === 0);
  for (const [label, seconds] of [["Created", job.created], [isOver ? "Ended" : "Last change", job.changed]]) {
    if (hasNumber(seconds)) pairs.push([label, seconds]);
  }
  const list = byId("fields");
  const labels = [...list.querySelectorAll("dt")].map((node) => node.textContent);
  if (labels.join() !== pairs.map(([label]) => label).join()) {
    list.replaceChildren(...pairs.flatMap(([label]) => [element("dt", label), element("dd")]));
  }
  pairs.forEach(([label, value], index) => {
    const node = list.children[2 * index + 1];
    if (label !== "Created" && label !== "Ended" && label !== "Last change") return setText(node, value);
    const date = new Date(value * 1000);
    setText(node, isNaN(date) ? value : date.toLocaleString() + " (" + ago(value) + ")");
  });
}

function appendLog(text) {
  const pre = byId("log");
  const isAtEnd = pre.scrollHeight - pre.scrollTop - pre.clientHeight < BOTTOM_PX;
  log.text.appendData(shown(text));
  if (log.text.length > MAX_CHARS) log.text.deleteData(0, log.text.length - MAX_CHARS);
  if (isAtEnd) pre.scrollTop = pre.scrollHeight;
}

function newLog(id, length) {
  Object.assign(log, {id, position: Math.max(0, length - TAIL_BYTES), decoder: new TextDecoder(), text: document.createTextNode("")});
  byId("log").replaceChildren(log.text);
  if (log.position) appendLog("[the first " + log.position.toLocaleString() + " bytes are not shown; the download has them]\n");
}

async function refreshLog(path, about) {
  if (about === null) return setText(byId("log-status"), "There is no log.");
  if (about.id !== log.id || about.size < log.position) newLog(about.id, about.size); // the first look, or a new try
  const before = log.text.length;
  while (log.position < about.size) {
    const answer = await ask(path + "/log?start=" + log.position);
    const bytes = answer ? new Uint8Array(await answer.arrayBuffer()) : [];
    if (!bytes.length) break; // it was replaced meanwhile
    log.position += bytes.length;
    appendLog(log.decoder.decode(bytes, {stream: true}));
  }
  setText(byId("log-status"), about.size ? size(about.size) : "The log is empty.");
  if (log.text.length !== before) findInLog(false);
}

// Mark all places; the text itself stays as it is.
function findInLog(isNew) {
  const word = byId("log-words").value.toLowerCase();
  hits = [];
  if (word && log.text) {
    const text = log.text.data.toLowerCase();
    // Some capital letters are longer in lower case; then the places would not be those.
    const haystack = text.length === log.text.length ? text : log.text.data;
    for (let at = haystack.indexOf(word); at >= 0 && hits.length < MAX_HITS; at = haystack.indexOf(word, at + word.length)) {
      const range = document.createRange();
      range.setStart(log.text, at);
      range.setEnd(log.text, at + word.length);
      hits.push(range);
    }
  }
  mark("hit", hits);
  byId("previous").disabled = byId("next").disabled = !hits.length;
  if (isNew) hit = -1;
  if (isNew && hits.length) return showHit(0);
  if (hit >= hits.length) hit = -1;
  mark("now", hit < 0 ? [] : [hits[hit]]);
  sayHits();
}

// Browsers that can't mark places go there all the same.
function mark(name, ranges) {
  if (!CSS.highlights) return;
  const highlight = new Highlight(...ranges);
  highlight.priority = name === "now" ? 1 : 0;
  CSS.highlights.set(name, highlight);
}

function sayHits() {
  const count = hits.length + (hits.length === MAX_HITS ? " or more" : "");
  setText(byId("hits"), !byId("log-words").value ? "" : !hits.length ? "not found" : (hit < 0 ? "" : hit + 1 + " of ") + count);
}

function showHit(index) {
  hit = (index + hits.length) % hits.length;
  mark("now", [hits[hit]]);
  const pre = byId("log"), place = hits[hit].getBoundingClientRect(), frame = pre.getBoundingClientRect();
  if (place.top < frame.top || place.bottom > frame.bottom) pre.scrollTop += place.top - frame.top - frame.height / 3;
  if (place.left < frame.left || place.right > frame.right) pre.scrollLeft += place.left - frame.left - frame.width / 3;
  sayHits();
}

function startJob() {
  const name = decodeURIComponent(location.pathname.split("/").pop());
  const path = "/ui/jobs/" + encodeURIComponent(name);
  setText(byId("title"), "Job " + name);
  byId("back").href = sessionStorage.getItem("list") || "/ui"; // as it was left, with its filters
  byId("download").href = "/cloudupload/" + encodeURIComponent(name) + "/_log?nostream=1";
  byId("download").download = "job-" + name + ".log";
  const wrap = () => byId("log").classList.toggle("wrapped", byId("wrap").checked);
  byId("wrap").addEventListener("change", wrap);
  wrap();
  byId("log-words").addEventListener("input", () => findInLog(true));
  byId("find").addEventListener("submit", (event) => { event.preventDefault(); if (hits.length) showHit(hit + 1); });
  byId("previous").addEventListener("click", () => { if (hits.length) showHit(hit - 1); });
  forEver(async () => {
    const answer = await ask(path);
    if (!answer) {
      byId("job").hidden = true;
      document.title = "No such job - Cloud uploads";
      return setText(byId("status"), "There is no such job. It may have been removed from the archive.");
    }
    const found = await answer.json();
    now = found.now;
    showJob(found.job);
    setText(byId("status"), "");
    byId("download").hidden = found.log === null;
    await refreshLog(path, found.log);
  }, () => REFRESH_MS);
}

if (byId("filter")) startList();
else startJob();
