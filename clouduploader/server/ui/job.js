// The page of one job.
import {REFRESH_MS, ago, ask, byId, duration, element, forEver, hasNumber, setNow, setProgress, setState, setText, shown, size, start} from "./base.js";

const TAIL_BYTES = 1048576; // of a long log the end is shown
const MAX_CHARS = 4000000; // of a log in the page; what is older is dropped
const MAX_HITS = 10000;
const BOTTOM_PX = 30; // a reader this near to the end of the log follows it
const FIELDS = [
  ["Progress", (job) => hasNumber(job.progress) ? job.progress + " %" : ""], ["Try", (job) => job.try], ["User", (job) => job.user],
  ["Target", (job) => job.target], ["Image", (job) => job.filename],
  ["Size", (job) => hasNumber(job.size) ? size(job.size) + (job.size < 1024 ? "" : " (" + job.size.toLocaleString() + " bytes)") : ""],
  ["Project", (job) => job.project], ["Repository", (job) => job.repository], ["Package", (job) => job.package],
  ["Architecture", (job) => job.arch],
];

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
    setNow(found.now);
    showJob(found.job);
    setText(byId("status"), "");
    byId("download").hidden = found.log === null;
    await refreshLog(path, found.log);
  }, () => REFRESH_MS);
}

start().catch(() => {});
startJob();
