// The log of a job, as it grows, and the search in it.
import {byId, goToSignIn, pause, setText, shown, size} from "./base.js";

const RETRY_MS = 3000; // after a connection was lost
const TAIL_BYTES = 1048576; // of a long log the end is shown
const MAX_CHARS = 4000000; // of a log in the page; what is older is dropped
const MAX_HITS = 10000;
const BOTTOM_PX = 30; // a reader this near to the end of the log follows it

let log = document.createTextNode("");
let position = null; // behind the bytes that are shown; null before the first
let following = null; // ends the connection that is open
let hits = [], hit = -1;

function appendLog(text) {
  const pre = byId("log");
  const isAtEnd = pre.scrollHeight - pre.scrollTop - pre.clientHeight < BOTTOM_PX;
  log.appendData(shown(text));
  if (log.length > MAX_CHARS) log.deleteData(0, log.length - MAX_CHARS);
  if (isAtEnd) pre.scrollTop = pre.scrollHeight;
  if (byId("log-words").value) findInLog(false);
}

function newLog(start) {
  log = document.createTextNode("");
  position = start;
  byId("log").replaceChildren(log);
  if (position) appendLog("[the first " + position.toLocaleString() + " bytes are not shown; the download has them]\n");
}

// The server-sent events of an answer. EventSource can't begin in the middle, and does not say why it fails.
async function* events(path, last, signal) {
  const answer = await fetch(path, {headers: {"Last-Event-ID": last}, signal, cache: "no-store"});
  if (answer.status === 401) await goToSignIn();
  if (!answer.ok) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ;) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) yield Object.fromEntries(part.split("\n").map((line) => line.split(/: (.*)/s, 2)));
  }
}

// Show what there is of a log, and what comes, until the job is over.
async function follow(id) {
  following = new AbortController();
  try {
    for await (const {event, id: last, data} of events("/api/v1/jobs/" + id + "/log/events", String(position), following.signal)) {
      if (event === "restart") newLog(0);
      if (event === "log") appendLog(JSON.parse(data).text);
      if (event) position = Number(last);
      setText(byId("log-status"), position ? size(position) : "The log is empty.");
      if (event === "end") return;
    }
    await pause(RETRY_MS);
  } catch (error) {
    if (error.name !== "AbortError") await pause(RETRY_MS);
  } finally {
    following = null;
  }
}

// Look whether there is more of a log than is shown; its length in bytes, or null without one.
export function refreshLog(id, bytes) {
  if (bytes === null) return setText(byId("log-status"), "There is no log.");
  if (following) return;
  if (position === null) newLog(Math.max(0, bytes - TAIL_BYTES));
  if (bytes !== position || !position) follow(id);
}

// A page that is not seen holds no connection: a browser has few for one server.
document.addEventListener("visibilitychange", () => {
  if (document.hidden && following) following.abort();
});

// Mark all places; the text itself stays as it is.
function findInLog(isNew) {
  const word = byId("log-words").value.toLowerCase();
  hits = [];
  if (word) {
    const text = log.data.toLowerCase();
    // Some capital letters are longer in lower case; then the places would not be those.
    const haystack = text.length === log.length ? text : log.data;
    for (let at = haystack.indexOf(word); at >= 0 && hits.length < MAX_HITS; at = haystack.indexOf(word, at + word.length)) {
      const range = document.createRange();
      range.setStart(log, at);
      range.setEnd(log, at + word.length);
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

const wrap = () => byId("log").classList.toggle("wrapped", byId("wrap").checked);
byId("wrap").addEventListener("change", wrap);
wrap();
byId("log-words").addEventListener("input", () => findInLog(true));
byId("find").addEventListener("submit", (event) => { event.preventDefault(); if (hits.length) showHit(hit + 1); });
byId("previous").addEventListener("click", () => { if (hits.length) showHit(hit - 1); });
