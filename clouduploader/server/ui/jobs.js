// The list of jobs.
import {REFRESH_MS, ask, byId, element, forEver, link, session, setProgress, setState, setText, setTime, size, start} from "./base.js";

const SEARCH_REFRESH_MS = 15000; // a search reads thousands of records
const TYPING_MS = 300;
const PAGE_JOBS = 50;
const MAX_JOBS = 200; // in one answer

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
  row.children[0].append(link("/ui/job/" + name, name));
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
  const names = new Set(jobs.map((job) => job.id));
  for (const [name, row] of rows) {
    if (!names.has(name)) {
      row.remove();
      rows.delete(name);
    }
  }
  let before = byId("jobs").firstChild;
  for (const job of jobs) {
    let row = rows.get(job.id);
    if (!row) rows.set(job.id, row = makeRow(job.id));
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
    query.set("running", "true");
  }
  const jobs = [];
  let next = null, total = 0;
  do {
    query.set("limit", Math.min(wanted - jobs.length, MAX_JOBS));
    if (next !== null) query.set("cursor", next);
    const found = await ask("/jobs?" + query, signal);
    jobs.push(...found.jobs);
    ({total, next} = found);
    if (next !== null && jobs.length < wanted) {
      showJobs(jobs);
      setText(byId("status"), isFiltered ? "Searching; older than job " + next : "Loading");
    }
  } while (next !== null && jobs.length < wanted);
  showJobs(jobs);
  suggest("users", jobs.map((job) => job.user));
  suggest("targets", jobs.map((job) => job.target));
  byId("more").hidden = next === null;
  const none = byId("none");
  none.hidden = jobs.length > 0;
  setText(none, isFiltered ? "No job matches." : "There are no jobs yet.");
  const all = total === null ? jobs.length : total; // a user is not told how many jobs there are
  const count = all.toLocaleString() + (total === null && next !== null ? " or more" : "") + (all === 1 ? " job" : " jobs");
  const busy = jobs.filter((job) => job.state === "uploading").length;
  const matches = jobs.length.toLocaleString() + (next === null ? "" : " or more") + (total === null ? " found" : " of " + count);
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

await start();
byId("by-user").hidden = session.role === "user";
startList();
