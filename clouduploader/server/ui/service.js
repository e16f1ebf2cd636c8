// The page of administrators: how the service is, and its users.
import {ask, byId, describe, element, forEver, link, makeRow, setText, showColumns, shown, size, start, timeOr} from "./base.js";

const REFRESH_MS = 5000;
const COLUMNS = ["User", "Jobs not over", "Their images", "Tokens", "Accounts"];
const HOST_COLUMNS = ["Host", "State", "Jobs", "Slots", "Queues", "Seen", "Version", "Clock"];

function stateOf(host) {
  return host.gone ? "gone" : host.draining ? "draining" : host.queues.length ? "ready" : "not ready";
}

function jobsOf(host, leases) {
  const cell = element("span");
  for (const lease of leases.filter((one) => one.host === host.name)) {
    if (cell.hasChildNodes()) cell.append(", ");
    cell.append(link("/ui/job/" + encodeURIComponent(lease.job), lease.job));
  }
  return cell;
}

async function refreshCluster() {
  const {hosts, queues, leases} = await ask("/cluster");
  byId("hosts").replaceChildren(...hosts.map((host) => makeRow(HOST_COLUMNS, [
    host.name, stateOf(host), jobsOf(host, leases), String(host.slots), host.queues.join(", "), timeOr(host.seen, ""),
    host.version, (host.skew_seconds < 0 ? "" : "+") + host.skew_seconds.toFixed(1) + " s",
  ])));
  byId("queues").replaceChildren(...queues.flatMap((queue) => {
    const text = "Queue " + queue.name + ": " + queue.published + " waiting for a host";
    return [shown(text), ...(queue.oldest ? [", the oldest since ", timeOr(queue.oldest, "")] : []), element("br")];
  }));
}

async function refresh() {
  const [state, {users}] = await Promise.all([ask("/service"), ask("/users")]);
  byId("checks").replaceChildren(...state.checks.map((check) => {
    const item = element("li");
    item.append(element("strong", check.fault ? "failure" : "ok", "level " + (check.fault ? "failure" : "ok")), " " + check.name + (check.fault ? ": " + check.fault : ""));
    return item;
  }));
  const queue = Object.entries(state.queue).map(([name, count]) => count + " " + name);
  describe(byId("facts"), [
    ["Running since", timeOr(state.started, "")],
    ["Queue", queue.join(", ") || "empty"],
    ["Worker", state.worker || (state.cluster ? "publishes for the upload hosts" : "runs")],
    ["Images coming in", String(state.receiving)],
    ["Images in pieces", String(state.images)],
    ["Free disk", size(state.disk.free_bytes) + ", of which " + size(state.disk.kept_bytes) + " are kept"],
    ["Free inodes", state.disk.free_inodes === null ? "any number" : state.disk.free_inodes.toLocaleString()],
    ["Versions", Object.entries(state.versions).map(([name, version]) => name + " " + version).join(", ")],
  ]);
  byId("users").replaceChildren(...users.map((user) => {
    const named = "?user=" + encodeURIComponent(user.name);
    return makeRow(COLUMNS, [link("/ui" + named, user.name), String(user.jobs), size(user.bytes), String(user.tokens), link("/ui/accounts" + named, String(user.accounts))]);
  }));
  byId("cluster").hidden = !state.cluster;
  if (state.cluster) await refreshCluster();
  setText(byId("status"), "");
}

await start();
showColumns(COLUMNS);
showColumns(HOST_COLUMNS, "host-columns");
forEver(refresh, () => REFRESH_MS);
