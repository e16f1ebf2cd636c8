// The page of administrators: how the service is, and its users.
import {ask, byId, describe, element, forEver, link, makeRow, setText, showColumns, size, start, timeOr} from "./base.js";

const REFRESH_MS = 5000;
const COLUMNS = ["User", "Jobs not over", "Their images", "Tokens", "Accounts"];

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
    ["Worker", state.worker || "runs"],
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
  setText(byId("status"), "");
}

await start();
showColumns(COLUMNS);
forEver(refresh, () => REFRESH_MS);
