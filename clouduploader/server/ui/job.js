// The page of one job.
import {REFRESH_MS, ago, ask, byId, change, confirmed, duration, element, forEver, hasNumber, session, setProgress, setState, setText, shown, size, start} from "./base.js";
import {refreshLog} from "./log.js";

const FIELDS = [
  ["Progress", (job) => hasNumber(job.progress) ? job.progress + " %" : ""], ["Phase", (job) => job.state === "uploading" ? job.phase : ""],
  ["Try", (job) => job.tries], ["Host", (job) => job.host ? job.host + ", attempt " + job.attempt : ""], ["User", (job) => job.user], ["Target", (job) => job.target], ["Image", (job) => job.filename],
  ["Size", (job) => hasNumber(job.size) ? size(job.size) + (job.size < 1024 ? "" : " (" + job.size.toLocaleString() + " bytes)") : ""],
  ["Project", (job) => job.project], ["Repository", (job) => job.repository], ["Package", (job) => job.package],
  ["Architecture", (job) => job.arch], ["In the cloud", (job) => job.objects.map(inCloud).join("\n")],
];
const OVER = ["succeeded", "failed", "damaged"];
const id = decodeURIComponent(location.pathname.split("/").pop());
const path = "/jobs/" + encodeURIComponent(id);

function inCloud(thing) {
  return thing.kind + " " + thing.id + (thing.region ? " in " + thing.region : "");
}

function fullTime(moment) {
  const date = new Date(moment);
  return isNaN(date) ? moment : date.toLocaleString() + " (" + ago(date) + ")";
}

function showJob(job) {
  document.title = "Job " + id + " " + shown(job.state) + " - Cloud uploads";
  byId("job").hidden = false;
  byId("job").className = /^[a-z]+$/.test(job.state) ? job.state : "";
  setState(byId("state"), job.state);
  setProgress(byId("outcome"), job);
  const isOver = OVER.includes(job.state), created = new Date(job.created), changed = new Date(job.changed);
  const when = [];
  if (isOver && job.changed) when.push(ago(changed));
  if (isOver && job.changed && job.created) when.push("after " + duration((changed - created) / 1000));
  if (!isOver && job.created) when.push("created " + ago(created));
  setText(byId("when"), when.join(", "));
  setText(byId("reason"), job.damage || job.details || "");
  const times = [["Created", job.created], ["At the host since", job.since], [isOver ? "Ended" : "Last change", job.changed]].filter(([, moment]) => moment);
  const pairs = [
    ...FIELDS.map(([label, value]) => [label, value(job)]).filter(([, value]) => value || value === 0),
    ...times.map(([label, moment]) => [label, fullTime(moment)]),
  ];
  const list = byId("fields");
  const labels = [...list.querySelectorAll("dt")].map((node) => node.textContent);
  if (labels.join() !== pairs.map(([label]) => label).join()) {
    list.replaceChildren(...pairs.flatMap(([label]) => [element("dt", label), element("dd")]));
  }
  pairs.forEach(([, value], index) => setText(list.children[2 * index + 1], value));
  byId("actions").hidden = !session.csrf;
  byId("kill").hidden = isOver;
  byId("retry").hidden = job.state !== "waiting";
}

async function refresh() {
  const job = await ask(path);
  if (!job) {
    byId("job").hidden = true;
    document.title = "No such job - Cloud uploads";
    return setText(byId("status"), "There is no such job. It may have been removed from the archive.");
  }
  showJob(job);
  setText(byId("status"), "");
  byId("download").hidden = job.log_bytes === null;
  refreshLog(encodeURIComponent(id), job.log_bytes);
}

async function act(name, done) {
  setText(byId("done"), "");
  try {
    showJob(await change("POST", path + "/" + name));
    setText(byId("done"), done);
  } catch (error) {
    setText(byId("done"), "That was not possible: " + error.message);
  }
}

await start();
setText(byId("title"), "Job " + id);
byId("back").href = sessionStorage.getItem("list") || "/ui"; // as it was left, with its filters
byId("download").href = "/api/v1" + path + "/log";
byId("download").download = "job-" + id + ".log";
byId("retry").addEventListener("click", () => act("retry", "It is tried again."));
byId("kill").addEventListener("click", async () => {
  const text = "Its uploader is stopped, and removes what it has made in the cloud.";
  if (await confirmed("Kill job " + id + "?", text, "Kill")) act("kill", "It was killed.");
});
forEver(refresh, () => REFRESH_MS);
