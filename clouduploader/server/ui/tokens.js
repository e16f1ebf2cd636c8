// The page on which a user makes and revokes tokens; an admin those of all.
import {ask, button, byId, change, confirmed, makeRow, session, setText, showColumns, start, timeOr} from "./base.js";

const DAY_MS = 86400000;

function columns() {
  return [...(session.role === "admin" ? ["User", "Role"] : []), "For", "Made", "Last used", "Ends", "Actions"];
}

async function refresh() {
  const {tokens} = await ask("/tokens");
  byId("none").hidden = tokens.length > 0;
  byId("tokens").replaceChildren(...tokens.map((token) => {
    const revoke = button("Revoke", async () => {
      const text = "Programs that use it are refused from now on, and sessions that were begun with it end.";
      if (!await confirmed("Revoke the token " + token.id + "?", text, "Revoke")) return;
      await change("DELETE", "/tokens/" + encodeURIComponent(token.id)).catch((error) => setText(byId("problem"), error.message));
      await refresh();
    });
    revoke.setAttribute("aria-label", "Revoke the token " + token.id + ", " + (token.note || "without a note"));
    const own = [token.note || token.id, timeOr(token.created, ""), timeOr(token.used, "never"), timeOr(token.expires, "never"), revoke];
    return makeRow(columns(), session.role === "admin" ? [token.user, token.role, ...own] : own);
  }));
}

async function make(event) {
  event.preventDefault();
  setText(byId("problem"), "");
  byId("made").hidden = true;
  const days = byId("days").value, wanted = {note: byId("note").value.trim()};
  if (days) wanted.expires = new Date(Date.now() + days * DAY_MS).toISOString();
  if (session.role === "admin") Object.assign(wanted, {role: byId("role").value, user: byId("user").value.trim()});
  try {
    const {token, expires} = await change("POST", "/tokens", wanted);
    byId("text").value = token;
    byId("ends").replaceChildren("It ends ", timeOr(expires, "never"), ".");
    byId("made").hidden = false;
    byId("new").reset();
    byId("text").select();
    await refresh();
  } catch (error) {
    setText(byId("problem"), "That was not possible: " + error.message);
  }
}

await start();
for (const node of document.querySelectorAll(".admin")) node.hidden = session.role !== "admin";
showColumns(columns());
byId("new").addEventListener("submit", make);
byId("copy").addEventListener("click", async () => {
  byId("text").select();
  // Without TLS a browser has no clipboard for pages: the text is selected.
  await navigator.clipboard?.writeText(byId("text").value).then(() => setText(byId("copied"), "Copied."), () => {});
});
await refresh();
setText(byId("status"), "");
